"""``python -m lit_rnn study``: many runs from one file, planned, run here or elsewhere, and summed up over seeds."""
