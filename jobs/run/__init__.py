"""The run directory: file names, tables, ``job.yaml``, event log and status; read with ``jobs.run.reader.Run``."""
