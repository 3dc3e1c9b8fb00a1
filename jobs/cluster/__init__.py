"""A running Ray cluster as seen from outside: reaching it, what is sent to it, and what it is asked beforehand."""
