"""Recurrences, one file each, usable without Lightning."""

from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.deltaproduct import DeltaProductCell
from lit_rnn.cells.eurnn import EURNNCell, GORUCell, RealEURNNCell
from lit_rnn.cells.exprnn import DtrivRNNCell, ExpRNNCell, UnitaryExpRNNCell
from lit_rnn.cells.gated import GateInit, GRUCell, LSTMCell
from lit_rnn.cells.householder import HouseholderRNNCell
from lit_rnn.cells.janet import JANETCell
from lit_rnn.cells.lem import LEMCell
from lit_rnn.cells.linear import LinearCell
from lit_rnn.cells.linoss import Discretization, LinOSSCell
from lit_rnn.cells.lru import LRUCell
from lit_rnn.cells.minimal import MinGRUCell, MinLSTMCell
from lit_rnn.cells.nnrnn import NnRNNCell
from lit_rnn.cells.nru import NRUCell, NRUForm
from lit_rnn.cells.ode import AntisymmetricRNNCell, LipschitzRNNCell
from lit_rnn.cells.orthogonal import OrthogonalCell, UnitaryCell
from lit_rnn.cells.oscillators import CoRNNCell, UnICORNNCell
from lit_rnn.cells.plain import PlainCell
from lit_rnn.cells.scornn import ScoRNNCell, ScuRNNCell
from lit_rnn.cells.slstm import SLSTMCell
from lit_rnn.cells.statistical import StatisticalRUCell
from lit_rnn.cells.urnn import FullURNNCell, URNNCell
from lit_rnn.cells.vanilla import LayerNormRNNCell, VanillaRNNCell

__all__ = [
    "AntisymmetricRNNCell",
    "Cell",
    "CoRNNCell",
    "DeltaProductCell",
    "Discretization",
    "DtrivRNNCell",
    "EURNNCell",
    "ExpRNNCell",
    "FullURNNCell",
    "GORUCell",
    "GRUCell",
    "GateInit",
    "HouseholderRNNCell",
    "JANETCell",
    "LEMCell",
    "LRUCell",
    "LSTMCell",
    "LayerNormRNNCell",
    "LinOSSCell",
    "LinearCell",
    "LipschitzRNNCell",
    "MinGRUCell",
    "MinLSTMCell",
    "NRUCell",
    "NRUForm",
    "NnRNNCell",
    "OrthogonalCell",
    "PlainCell",
    "RealEURNNCell",
    "SLSTMCell",
    "ScoRNNCell",
    "ScuRNNCell",
    "State",
    "StatisticalRUCell",
    "URNNCell",
    "UnICORNNCell",
    "UnitaryCell",
    "UnitaryExpRNNCell",
    "VanillaRNNCell",
]
