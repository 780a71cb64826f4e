"""Recurrent networks with a long memory: trained, compared, taken apart and attacked under one protocol."""

from lit_rnn.shadowing import refuse_shadows

__version__ = "0.1.0"

refuse_shadows()  # before the first import that it would break
