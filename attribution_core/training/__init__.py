"""Exact models: encoders shifted so that every reference embeds to zero, and their fine-tuning.

The attributions of such a model sum to its score itself (Möller, Nikolaev, Padó, EMNLP 2023, section 2.2).
"""
