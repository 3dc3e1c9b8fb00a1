"""Highlights of an index in a terminal and on a page."""
