"""Recurrent networks with a long memory: trained, compared, taken apart and attacked under one protocol."""

__version__ = "0.1.0"
