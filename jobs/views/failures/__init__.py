"""Kinds of failure, drawn."""
