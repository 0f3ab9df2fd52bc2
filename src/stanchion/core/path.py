"""Paths into arguments and results: "recipients.0", "items.*.id", "body[12:40]"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

import msgspec

_SPAN = re.compile(r"(.*)\[(\d+):(\d+)\]")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """List the plain values in a value, with their paths."""
    if isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            yield from leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for place, item in enumerate(cast("list[Any]", value)):
            yield from leaves(item, f"{path}.{place}" if path else str(place))
    else:
        yield path, value


@lru_cache(maxsize=4096)
def fits(pattern: str, path: str) -> bool:
    """Whether a path is one that a pattern means. Remembered: a tool's calls have the same few paths."""
    wanted, found = pattern.split("."), path.split(".")
    return len(wanted) == len(found) and all(w in ("*", f) for w, f in zip(wanted, found, strict=True))


def select(value: Any, pattern: str) -> Iterator[tuple[str, Any]]:
    """List what a pattern finds in a value, with paths. "@" gives the keys of an object. Containers give their leaves."""
    yield from _select(value, pattern.split(".") if pattern else [], "")


def _select(value: Any, steps: list[str], path: str) -> Iterator[tuple[str, Any]]:
    if not steps:
        yield from leaves(value, path)
        return
    step, rest = steps[0], steps[1:]
    items: Iterator[tuple[str, Any]] = iter(())
    if isinstance(value, dict):
        known = cast("dict[str, Any]", value)
        if step == "@":
            yield from ((f"{path}.{key}" if path else key, key) for key in known)
            return
        items = iter(known.items()) if step == "*" else iter([(step, known[step])] if step in known else [])
    elif isinstance(value, list):
        listed = cast("list[Any]", value)
        numbered = ((str(place), item) for place, item in enumerate(listed))
        items = numbered if step == "*" else (pair for pair in numbered if pair[0] == step)
    for key, item in items:
        yield from _select(item, rest, f"{path}.{key}" if path else key)


def pick(arguments: str, paths: tuple[str, ...]) -> list[str]:
    """Give the texts that stand at paths of arguments as JSON; what is not there, or cannot be read, is left out."""
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.MsgspecError, ValueError):
        return []
    found = dict(leaves(value))
    picked: list[str] = []
    for path in paths:
        span = _SPAN.fullmatch(path)
        name = span[1] if span else path
        if isinstance(said := found.get(name), str):
            picked.append(said[int(span[2]) : int(span[3])] if span else said)
    return picked


def changed(before: str, after: str) -> frozenset[str]:
    """List the paths of arguments, as JSON, that hold another value than before, or are new."""
    try:
        old = dict(leaves(msgspec.json.decode(before)))
        new = dict(leaves(msgspec.json.decode(after)))
    except (msgspec.MsgspecError, ValueError):
        return frozenset()
    return frozenset(path for path, value in new.items() if path not in old or old[path] != value)
