"""``search:`` in a study file: trials that Optuna draws, on one SQLite file that several processes may share."""
