"""Exact models: encoders shifted so that every reference embeds to zero, and their fine-tuning.

In such a model the paper's attributions, a difference of four scores, are those that sum to the score (Möller,
Nikolaev, Padó, EMNLP 2023, section 2.2).
"""
