"""An examination of a model in the terminal."""
