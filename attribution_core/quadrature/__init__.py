"""The path integral's nodes: rules, how many a text needs, and what earlier texts needed."""
