"""The commands: one module for each group of them, the flags that they share, and their output.

Commands import heavy modules (pydantic, numpy, rich, torch) inside their functions, so that ``--help`` starts fast.
"""
