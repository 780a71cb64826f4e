"""``python -m lit_rnn attack``: how much of a model's accuracy is left under attack."""
