"""Faithfulness as curves and in the terminal."""
