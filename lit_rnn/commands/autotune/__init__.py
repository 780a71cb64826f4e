"""``python -m lit_rnn autotune``: what decides which backend ``auto`` takes on a GPU."""
