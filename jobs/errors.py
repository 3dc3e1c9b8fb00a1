"""Errors that a user can cause and fix. Each message names the file, field or address, and contains no credentials."""

from __future__ import annotations

from attribution_core.errors import SettingError, TokenpairError


class JobError(SettingError):
    """The job file or a flag is invalid; the message has one line for each invalid field."""


class SourceError(TokenpairError):
    """The input cannot be read as pairs: a file or a column is missing, or the format is not what the name says."""


class StoreError(TokenpairError):
    """The run directory or an input location cannot be reached, read or written."""


class RunError(TokenpairError):
    """A run directory lacks the requested data, is damaged, or belongs to another job."""


class ExportError(TokenpairError):
    """An optional package that an export needs is not installed."""


class ClusterError(TokenpairError):
    """Ray cannot be started or reached, or the cluster lacks what the job needs."""
