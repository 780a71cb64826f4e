"""scan: a cell over time."""

from lit_rnn.scan.run import Backend, check_backend, choose_backend, foreseen, scan, supports

__all__ = ["Backend", "check_backend", "choose_backend", "foreseen", "scan", "supports"]
