"""LightningModules: one per architecture = cell + parametrization + optimizer hooks."""

from lit_rnn.models.base import SequenceModel
from lit_rnn.models.exprnn import DtrivRNN, ExpRNN
from lit_rnn.models.gated import GRU, JANET, LSTM, NRU, StatisticalRU
from lit_rnn.models.loading import load, read_checkpoint
from lit_rnn.models.ode import AntisymmetricRNN, LipschitzRNN
from lit_rnn.models.orthogonal import EURNN, GORU, URNN, FullURNN, HouseholderRNN, NnRNN, OrthogonalRNN, ScoRNN, ScuRNN
from lit_rnn.models.rivals import LEM, LRU, SLSTM, CoRNN, DeltaProduct, LinOSS, MinGRU, MinLSTM, UnICORNN
from lit_rnn.models.sampling import sample
from lit_rnn.models.vanilla import VanillaRNN

__all__ = [
    "EURNN",
    "GORU",
    "GRU",
    "JANET",
    "LEM",
    "LRU",
    "LSTM",
    "NRU",
    "SLSTM",
    "URNN",
    "AntisymmetricRNN",
    "CoRNN",
    "DeltaProduct",
    "DtrivRNN",
    "ExpRNN",
    "FullURNN",
    "HouseholderRNN",
    "LinOSS",
    "LipschitzRNN",
    "MinGRU",
    "MinLSTM",
    "NnRNN",
    "OrthogonalRNN",
    "ScoRNN",
    "ScuRNN",
    "SequenceModel",
    "StatisticalRU",
    "UnICORNN",
    "VanillaRNN",
    "load",
    "read_checkpoint",
    "sample",
]
