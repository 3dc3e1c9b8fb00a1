"""Reads YAML from untrusted sources: plain values only, without repeated keys and aliases."""

from __future__ import annotations

from typing import Any

import yaml


def read_yaml(text: str | bytes) -> Any:
    """Return the plain values of a YAML text.

    Raises ValueError, with a message of one line, for invalid YAML, tags such as ``!!python/…``, repeated keys, and
    aliases, because a few of them can expand to more than memory holds, or to a cycle.
    """
    try:
        return yaml.load(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise ValueError(f"{' '.join(str(error.problem or error.context).split())}{where}") from None
    except (yaml.YAMLError, RecursionError, ValueError, UnicodeDecodeError) as error:
        # ValueError: invalid dates, numbers with too many digits.
        raise ValueError(" ".join(str(error).split())) from None


def _loader() -> type:
    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                event = self.peek_event()
                raise yaml.composer.ComposerError(
                    None, None, f"the alias *{event.anchor} is not read: write it out", event.start_mark
                )
            return super().compose_node(parent, index)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            seen: set[str] = set()
            for key in keys:
                # PyYAML would silently use the last value.
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", node.start_mark)
                seen.add(key)
            return super().construct_mapping(node, deep)

    return Loader
