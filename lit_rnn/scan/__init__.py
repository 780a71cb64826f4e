"""scan: a cell over time."""

from lit_rnn.scan.run import Backend, backend_here, check_backend, choose_backend, foreseen, scan, supports

__all__ = ["Backend", "backend_here", "check_backend", "choose_backend", "foreseen", "scan", "supports"]
