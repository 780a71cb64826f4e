"""``python -m lit_rnn compare``: finished runs side by side."""
