"""Statistics as pages and in the terminal."""
