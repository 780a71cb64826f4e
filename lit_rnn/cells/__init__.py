"""Recurrences, one file each, usable without Lightning."""

from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.exprnn import DtrivRNNCell, ExpRNNCell
from lit_rnn.cells.gated import GRUCell, LSTMCell
from lit_rnn.cells.vanilla import VanillaRNNCell

__all__ = ["Cell", "DtrivRNNCell", "ExpRNNCell", "GRUCell", "LSTMCell", "State", "VanillaRNNCell"]
