"""The job file: its fields, their sections, and how YAML is read."""
