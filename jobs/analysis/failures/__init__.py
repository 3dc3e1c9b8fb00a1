"""Kinds of failure that a run shows: each rule in a module of its own, with its measured rates."""
