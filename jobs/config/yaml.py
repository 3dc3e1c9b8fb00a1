"""Reading YAML that anybody may have written: plain values only, each key once, and nothing that grows when read."""

from __future__ import annotations

from typing import Any

import yaml


def read_yaml(text: str | bytes) -> Any:
    """The plain values of a YAML text; ValueError, in one line, where it is not valid or holds more than that.

    Tags make no objects (``!!python/…`` is an error). Aliases are refused: a page of them can stand for more than
    memory holds, or for itself.
    """
    try:
        return yaml.load(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise ValueError(f"{' '.join(str(error.problem or error.context).split())}{where}") from None
    except (yaml.YAMLError, RecursionError, ValueError, UnicodeDecodeError) as error:
        # ValueError: impossible dates, numbers of too many digits.
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
                # PyYAML would silently take the last one.
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", node.start_mark)
                seen.add(key)
            return super().construct_mapping(node, deep)

    return Loader
