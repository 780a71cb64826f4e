"""What watches a run."""

from lit_rnn.callbacks.checkpoints import InitialCheckpoint, LastCheckpoint
from lit_rnn.callbacks.clock import Clock
from lit_rnn.callbacks.dashboard import Dashboard
from lit_rnn.callbacks.drift import Drift
from lit_rnn.callbacks.finite import FiniteLoss
from lit_rnn.callbacks.lengths import LengthPicture
from lit_rnn.callbacks.listening import Listening
from lit_rnn.callbacks.pictures import TaskPicture
from lit_rnn.callbacks.predictions import PredictionFile
from lit_rnn.callbacks.progress import EpochLines, Header, Progress
from lit_rnn.callbacks.sample import TextSample
from lit_rnn.callbacks.solved import Solved
from lit_rnn.callbacks.spectrum import SpectrumPicture
from lit_rnn.callbacks.states import StatePicture
from lit_rnn.callbacks.summary import Summary
from lit_rnn.callbacks.watch import WatchMatrices
from lit_rnn.runs.endings import DivergedError, Stopped

__all__ = [
    "Clock",
    "Dashboard",
    "DivergedError",
    "Drift",
    "EpochLines",
    "FiniteLoss",
    "Header",
    "InitialCheckpoint",
    "LastCheckpoint",
    "LengthPicture",
    "Listening",
    "PredictionFile",
    "Progress",
    "Solved",
    "SpectrumPicture",
    "StatePicture",
    "Stopped",
    "Summary",
    "TaskPicture",
    "TextSample",
    "WatchMatrices",
]
