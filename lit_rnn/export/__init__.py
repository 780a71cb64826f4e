"""Trained networks for elsewhere: safetensors with config.json, torch.export, ONNX, and torch's own nn.LSTM, GRU, RNN.

What these formats need beside torch is imported when it is used: ``pip install 'lit_rnn[export]'``.
"""

from lit_rnn.export.folder import load, save
from lit_rnn.export.network import Form, initial_state
from lit_rnn.export.programs import program, to_onnx, to_pt2
from lit_rnn.export.torch_rnn import from_torch, load_torch_, to_torch

__all__ = [
    "Form",
    "from_torch",
    "initial_state",
    "load",
    "load_torch_",
    "program",
    "save",
    "to_onnx",
    "to_pt2",
    "to_torch",
]
