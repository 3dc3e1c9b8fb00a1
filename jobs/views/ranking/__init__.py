"""The metrics of rankings, drawn."""
