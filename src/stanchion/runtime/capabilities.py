"""Grants as people write them: what a run may do at most, what the holder of an API key may approve.

Strict, for a misspelt constraint would be none: unknown fields are refused, and so are patterns and numbers that mean nothing.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from stanchion.core.errors import InputError
from stanchion.core.policy import Grant, Param

MOST_GRANTS = 200


class Reviewer(msgspec.Struct, frozen=True):
    """Who decides, as an API key says it: nobody decides in another's name."""

    name: str
    grants: tuple[Grant, ...] | None = None
    """What the holder may approve; None: anything."""


class _Param(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    among: tuple[str, ...] = ()
    most: str = ""
    least: str = ""


class _Grant(msgspec.Struct, forbid_unknown_fields=True):
    tools: tuple[str, ...]
    params: tuple[_Param, ...] = ()
    until_ms: int = 0


def read_grants(given: str | bytes | Any, *, field: str) -> tuple[Grant, ...]:
    """Read a list of grants (or one) from JSON, or from what JSON was parsed into. Raises `InputError` (field)."""
    document = _parsed(given, field) if isinstance(given, str | bytes) else given
    listed: Any = [document] if isinstance(document, dict) else document
    try:
        said = msgspec.convert(listed, tuple[_Grant, ...])
    except msgspec.ValidationError as error:
        text = f'{error}; write a list like [{{"tools": ["refund"], "params": [{{"path": "cents", "most": "5000"}}]}}]'
        raise InputError(text, field=field) from None
    if len(said) > MOST_GRANTS:
        raise InputError(f"has {len(said)} grants; at most {MOST_GRANTS} are taken", field=field)
    return tuple(_checked(grant, f"{field}[{place}]") for place, grant in enumerate(said))


def written(grants: tuple[Grant, ...]) -> str:
    """Write grants as JSON, to be kept."""
    return msgspec.json.encode(grants).decode()


def kept(text: str) -> tuple[Grant, ...] | None:
    """Read grants that were kept; None: anything. What cannot be read grants nothing."""
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=tuple[Grant, ...])
    except (msgspec.MsgspecError, ValueError):
        return ()


def _parsed(text: str | bytes, field: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InputError(f"is no JSON: {error}", field=field) from None


def _checked(grant: _Grant, field: str) -> Grant:
    if not grant.tools or not all(grant.tools):
        raise InputError('names no tool; write names or patterns, "*" for all', field=f"{field}.tools")
    if grant.until_ms < 0:
        raise InputError("is a time in milliseconds since 1970 UTC; 0: without end", field=f"{field}.until_ms")
    params = tuple(_param(param, f"{field}.params[{place}]") for place, param in enumerate(grant.params))
    return Grant(tools=grant.tools, params=params, until_ms=grant.until_ms)


def _param(param: _Param, field: str) -> Param:
    if not param.path:
        raise InputError('names no argument; write one, like "recipients.*"', field=f"{field}.path")
    if not (param.among or param.most or param.least):
        raise InputError("says nothing of it; give `among`, `most` or `least`", field=field)
    for name, bound in (("most", param.most), ("least", param.least)):
        if bound and not _is_number(bound):
            raise InputError(f'{bound!r} is no number; write it in decimal, like "99.50"', field=f"{field}.{name}")
    return Param(param.path, param.among, param.most, param.least)


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False
