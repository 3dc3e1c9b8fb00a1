"""How many words must go until two documents change places: a test of what a margin says."""
