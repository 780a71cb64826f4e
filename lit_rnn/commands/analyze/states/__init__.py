"""What the states of a trained network do: where they stand still, and what they keep."""
