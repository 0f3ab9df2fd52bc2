"""Front matter: the YAML between two `---` lines at the head of a Markdown file, with the line of each value.

What a scalar looks like is kept as it is written (`version: 1.10` is "1.10", not 1.1); only plain `true`, `false` and `null` are no
text. Refused are aliases, tags of one's own, keys said twice, and nesting without end. Line ends become "\\n".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from stanchion.core.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 8
Where = tuple[str | int, ...]
"""Keys and places on the way to a value."""

_TAG = "tag:yaml.org,2002:"
_BOOL, _NULL, _MERGE = f"{_TAG}bool", f"{_TAG}null", f"{_TAG}merge"
_TAGS = frozenset(_TAG + kind for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "value"))
_TRUE = frozenset({"true", "yes", "on"})


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """A file's head and its body."""

    file: str
    values: dict[str, Any]
    lines: dict[Where, int]
    body: str
    body_line: int

    def at(self, *where: str | int) -> str:
        """Name a place for an error: the file and the line of a value, or of the nearest one around it."""
        while where and where not in self.lines:
            where = where[:-1]
        return f"{self.file}:{self.lines.get(where, 1)}"


def read_front_matter(path: Path) -> FrontMatter:
    """Read a file. Raises `ConfigError` with file and line."""
    lines = _text(path).split("\n")
    if lines[0].rstrip() != "---":
        raise ConfigError(f"{path}:1: the file must begin with front matter: a line ---, then name: and description:")
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), 0)
    if not end:
        raise ConfigError(f"{path}:{len(lines)}: the front matter has no end; put a line --- before the text")
    values, places = _parse("\n".join(lines[1:end]) + "\n", str(path))
    return FrontMatter(str(path), values, places, "\n".join(lines[end + 1 :]).strip("\n"), end + 2)


def _text(path: Path) -> str:
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read: {error.strerror}") from None
    if len(body) > MAX_BYTES:
        raise ConfigError(f"{path}: it has {len(body):,} bytes; at most {MAX_BYTES:,} are read")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse(text: str, file: str) -> tuple[dict[str, Any], dict[Where, int]]:
    try:
        node = _Loader(text, file).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 2 if mark else 1
        raise ConfigError(f"{file}:{line}: this is no YAML: {error.problem}{_hint(error.problem or '')}") from None
    except yaml.YAMLError as error:  # a character that YAML does not have
        raise ConfigError(f"{file}: the front matter is no YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{file}:2: the front matter must be keys with values, as in name: refunds")
    places: dict[Where, int] = {}
    return cast("dict[str, Any]", _value(node, (), places, file)), places


def _hint(problem: str) -> str:
    if "mapping values are not allowed" in problem:
        return ' (a text with ": " in it needs quotes around it)'
    return " (a text that begins with a sign needs quotes around it)" if "cannot start any token" in problem else ""


class _Loader(yaml.SafeLoader):
    """Makes nodes and nothing else."""

    def __init__(self, text: str, file: str) -> None:
        super().__init__(text)
        self._file = file
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Make a node, unless it refers to another or lies too deep."""
        event = cast("Any", self.peek_event())  # pyright: ignore[reportUnknownMemberType]
        line = int(event.start_mark.line) + 2
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{self._file}:{line}: aliases (*name) are not read here; write the value out")
        if self._depth >= MAX_DEPTH:
            raise ConfigError(f"{self._file}:{line}: the front matter is nested more than {MAX_DEPTH} deep")
        self._depth += 1
        try:
            return super().compose_node(parent, index)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        finally:
            self._depth -= 1


def _value(node: yaml.Node, where: Where, places: dict[Where, int], file: str) -> Any:
    line = node.start_mark.line + 2
    places.setdefault(where, line)
    if node.tag not in _TAGS:
        raise ConfigError(f"{file}:{line}: the tag {node.tag!r} is not read here; leave it out")
    match node:
        case yaml.MappingNode():
            return _mapping(node, where, places, file)
        case yaml.SequenceNode():
            items = cast("list[yaml.Node]", node.value)
            return [_value(item, (*where, place), places, file) for place, item in enumerate(items)]
        case yaml.ScalarNode() if node.tag == _NULL:
            return None
        case yaml.ScalarNode() if node.tag == _BOOL:
            return str(node.value).lower() in _TRUE
        case _:
            return str(node.value)


def _mapping(node: yaml.MappingNode, where: Where, places: dict[Where, int], file: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
        line = key.start_mark.line + 2
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            raise ConfigError(f"{file}:{line}: a key must be a plain word")
        name = str(key.value)
        if name in found:
            raise ConfigError(f"{file}:{line}: {name!r} is said twice")
        places[(*where, name)] = line
        found[name] = _value(value, (*where, name), places, file)
    return found
