"""The run directory: its names, tables, record and event log, and the reader of all of them."""
