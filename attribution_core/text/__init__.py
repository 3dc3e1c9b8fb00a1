"""Texts: tokens with their offsets, and the words or sentences that they form."""
