"""What a user of a job can cause and mend; every text is one line, names the place, and holds no secret."""

from __future__ import annotations

from attribution_core.errors import SettingError, TokenpairError


class JobError(SettingError):
    """The job file or a flag is wrong; one line a wrong field."""


class SourceError(TokenpairError):
    """The input cannot be read as pairs: no such file, no such column, not the format its name says."""


class StoreError(TokenpairError):
    """The run directory or an input location cannot be reached, read or written."""


class RunError(TokenpairError):
    """A run directory does not hold what was asked of it."""


class ExportError(TokenpairError):
    """A package that only an export needs is not installed."""


class ClusterError(TokenpairError):
    """Ray cannot be started or reached, or the cluster cannot do what the job asks for."""
