"""``python -m lit_rnn fit|validate|test|predict``: LightningCLI with run folders and checkpoints checked first."""
