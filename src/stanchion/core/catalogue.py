"""The tools of a bundle as a catalogue: found by what they do, by name, and by group. Pure.

A `Catalogue` is a memo of one bundle: its index is made at the first search, and gives the same for the same bundle.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, cast

import msgspec

from stanchion.core.bm25 import Document, Index
from stanchion.core.bundle import BUILT_IN, Bundle, ToolSpec
from stanchion.core.deeds import weighed
from stanchion.core.terse import shown_parameters

NAME, GROUP, DESCRIPTION, PARAMETER, DETAIL = 4.0, 2.0, 1.0, 0.5, 0.25
"""What a term counts for in each field of a tool. `DETAIL`: descriptions of parameters and the values that they may have."""
_FIRST = 50
_NEAR = 50
"""How many names are compared letter by letter before all are."""
_WORD = re.compile(r"[^\s,;\"'`()]+")
_encode = msgspec.json.Encoder().encode


class Catalogue:
    """The tools of one bundle, to be searched. The built-in ones are not in it."""

    def __init__(self, bundle: Bundle) -> None:
        self._specs = tuple(spec for spec in bundle.tools if spec.name not in BUILT_IN)

    @cached_property
    def index(self) -> Index:
        """The index over all tools."""
        return Index(_document(spec) for spec in self._specs)

    def prepare(self) -> None:
        """Make the index now, and not in the midst of a run."""
        len(self.index)

    @cached_property
    def groups(self) -> Mapping[str, tuple[ToolSpec, ...]]:
        """Each group, the wider ones too, with the tools in it and under it; by name."""
        found: dict[str, list[ToolSpec]] = {}
        for spec in self._specs:
            parts = spec.group.split("/") if spec.group else []
            for depth in range(1, len(parts) + 1):
                found.setdefault("/".join(parts[:depth]), []).append(spec)
        return {name: tuple(found[name]) for name in sorted(found)}

    def search(self, query: str) -> Iterator[ToolSpec]:
        """Give the tools that a query means, best first: those that it names, then those that it describes."""
        return (spec for spec, _ in self.ranked(query))

    def ranked(self, query: str) -> Iterator[tuple[ToolSpec, float]]:
        """.. each with how near it is: 1 is named, or described best; 0.5 is half as well described as that."""
        named = self._named(query)
        yield from ((spec, 1.0) for spec in named)
        names = {spec.name for spec in named}
        words = weighed(query)
        given, most = 0, 0.0
        for limit in (_FIRST, len(self._specs)):  # the rest is sorted only if somebody wants it
            for number, score in self.index.search(words, limit)[given:]:
                most = most or score
                if self._specs[number].name not in names:
                    yield self._specs[number], score / most
            given = limit

    def _named(self, query: str) -> tuple[ToolSpec, ...]:
        """Find the names that stand in a query. One that is a plain word is meant only where it is all of it."""
        words = list(dict.fromkeys(word.casefold() for word in _WORD.findall(query)))
        said = (self._folded[word] for word in words if word in self._folded)
        return tuple(spec for spec in said if len(words) == 1 or not (spec.name.isalpha() and spec.name.islower()))

    @cached_property
    def _folded(self) -> Mapping[str, ToolSpec]:
        return {spec.name.casefold(): spec for spec in self._specs}

    def near(self, name: str, limit: int = 3) -> tuple[str, ...]:
        """Give the names that one which there is not may have meant, nearest first."""
        numbers = [number for number, _ in self.index.search(name, _NEAR)]
        alike = [self._specs[number].name for number in numbers]
        close = difflib.get_close_matches(name[:64], alike, n=limit)
        return tuple(close or difflib.get_close_matches(name[:64], [spec.name for spec in self._specs], n=limit))


def _document(spec: ToolSpec) -> Document:
    parameters = list(_parameters(spec.parameters))
    return (
        (spec.name, NAME),
        (spec.group, GROUP),
        (spec.description, DESCRIPTION),
        (" ".join(name for name, _ in parameters), PARAMETER),
        (" ".join(detail for _, detail in parameters), DETAIL),
    )


def _parameters(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """List the fields of a schema, the nested ones too, each with its description and the values that it may have."""
    waiting: list[Any] = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += reversed(cast("list[Any]", node))
            continue
        if not isinstance(node, Mapping):
            continue
        known = cast("Mapping[str, Any]", node)
        fields = known.get("properties")
        if isinstance(fields, Mapping):
            for name, field in cast("Mapping[str, Any]", fields).items():
                yield name, _detail(field)
            waiting += reversed(list(cast("Mapping[str, Any]", fields).values()))
        defined = known.get("$defs")
        if isinstance(defined, Mapping):
            waiting += cast("Mapping[str, Any]", defined).values()
        waiting += [known[key] for key in ("items", "anyOf", "allOf", "oneOf") if key in known]


def _detail(field: object) -> str:
    if not isinstance(field, Mapping):
        return ""
    known = cast("Mapping[str, Any]", field)
    values = known.get("enum")
    said = [known.get("description"), *(cast("list[Any]", values) if isinstance(values, list) else ())]
    return " ".join(text for text in said if isinstance(text, str))


def disclosure(spec: ToolSpec) -> str:
    """What the model reads of a tool that it finds: one line of JSON, as a list of tools would say it."""
    return _encode({"name": spec.name, "description": spec.description, "parameters": shown_parameters(spec)}).decode()


def line(spec: ToolSpec) -> str:
    """The line of a tool in its group's list: its name, and the first sentence of what it does."""
    first = re.split(r"(?<=[.!?])\s|\n", spec.description.strip(), maxsplit=1)[0]
    return f"- {spec.name}: {first[:120]}"
