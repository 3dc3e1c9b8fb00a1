"""Computes the shards of a run: the driver, the run loop, the workers and the outcome."""
