"""The order in which the texts of some pairs are computed, and by which contributor."""
