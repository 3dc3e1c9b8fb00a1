"""Probes: how a model's scores answer small edits of a run's own documents."""
