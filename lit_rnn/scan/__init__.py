"""scan: a cell over time."""

from lit_rnn.scan.run import Backend, choose_backend, foreseen, scan, supports

__all__ = ["Backend", "choose_backend", "foreseen", "scan", "supports"]
