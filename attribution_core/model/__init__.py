"""A model: its files, its checkpoint, its family, and the encoder cut at a layer."""
