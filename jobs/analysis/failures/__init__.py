"""Kinds of failure that a run shows: each rule in a module of its own, with the rates that were measured of it."""
