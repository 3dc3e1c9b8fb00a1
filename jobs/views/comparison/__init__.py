"""A comparison of two runs in the terminal."""
