"""``python -m lit_rnn analyze``: recurrent matrices taken apart."""
