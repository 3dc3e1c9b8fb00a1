"""One finished run as one self-contained page: what was found, whether to trust it, and pairs to look at."""
