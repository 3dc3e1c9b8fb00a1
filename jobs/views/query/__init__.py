"""A query with its documents as a page and in the terminal."""
