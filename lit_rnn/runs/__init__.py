"""A run on disk: its folder, its checkpoints, its numbers, and its data again."""
