"""The report of a run as one self-contained page: the findings, whether to trust them, and pairs to look at."""
