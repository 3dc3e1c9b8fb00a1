"""The errors that a user of tokenpair can cause and correct."""


class TokenpairError(Exception):
    """Something the user asked for cannot be done; the text says what, where, and what to do instead."""


class ModelError(TokenpairError):
    """The model cannot be loaded or cannot be attributed."""


class SettingError(TokenpairError, ValueError):
    """A setting has a value that is not allowed."""


class TextError(TokenpairError, ValueError):
    """A text has nothing that could be attributed."""
