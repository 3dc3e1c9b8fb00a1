"""Bytes: one store type for folders and s3://, commits that the first writer wins, one way to open DuckDB."""
