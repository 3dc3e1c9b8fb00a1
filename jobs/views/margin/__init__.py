"""A margin of two documents, and flips of their order: in a terminal and as a page."""
