"""JSON whose numbers stay as they are written, because a float loses the form of 1.10, 12e4 or 20 digits."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any


class Number(str):
    """A number as it is written."""

    __slots__ = ()

    @property
    def whole(self) -> bool:
        """Whether it is written as a whole number."""
        return self.removeprefix("-").isdigit()

    @property
    def kept_by_float(self) -> bool:
        """Whether a float of 64 bits, as it is usually written, is the same number."""
        value = float(self)
        if repr(value) == self or value != value:
            return True
        try:
            return Decimal(self) == Decimal(repr(value))
        except InvalidOperation:  # an exponent beyond all reason
            return False


_DECODER = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=Number)


def parsed(text: str) -> Any:
    """The value of a JSON text, its numbers as :class:`Number`; ValueError or RecursionError where it is none."""
    return _DECODER.decode(text)


def written(value: Any, plain: Callable[[object], str] | None = None) -> str:
    """A value of :func:`parsed` as JSON text, with its numbers as they were written.

    ``plain`` converts values that JSON does not have to text.
    """
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(written(one, plain) for one in value)}]"
    if isinstance(value, dict):
        members = (f"{json.dumps(str(key), ensure_ascii=False)}: {written(one, plain)}" for key, one in value.items())
        return "{" + ", ".join(members) + "}"
    return json.dumps(value, ensure_ascii=False, default=plain)
