"""Capabilities: whether a call is within what was granted. Grants only ever narrow: a call must be within one of each list."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from stanchion.core.path import fits, leaves
from stanchion.core.policy import Grant, Param
from stanchion.guard.values import normal


def covered(grants: tuple[Grant, ...] | None, tool: str, arguments: Mapping[str, Any], now_ms: int) -> str:
    """Say why no grant covers a call, or "". `None`: everything is granted."""
    if grants is None:
        return ""
    reasons: list[str] = []
    for grant in grants:
        if grant.kind or not any(fnmatchcase(tool, pattern) for pattern in grant.tools):
            continue
        why = _outside(grant, arguments, now_ms)
        if not why:
            return ""
        reasons.append(why)
    return "; ".join(reasons) or f"no grant covers {tool}"


def speaks_of(grants: tuple[Grant, ...] | None, tool: str) -> bool:
    """Whether calls of a tool may be granted at all. `None`: everything is."""
    if grants is None:
        return True
    return any(fnmatchcase(tool, pattern) for grant in grants if not grant.kind for pattern in grant.tools)


def lasting(grants: tuple[Grant, ...] | None, tool: str) -> bool:
    """Whether calls of a tool are granted whatever their arguments, without end."""
    if grants is None:
        return True
    free = (grant for grant in grants if not (grant.kind or grant.params or grant.until_ms))
    return any(fnmatchcase(tool, pattern) for grant in free for pattern in grant.tools)


def _outside(grant: Grant, arguments: Mapping[str, Any], now_ms: int) -> str:
    if grant.until_ms and now_ms >= grant.until_ms:
        return "the grant has ended"
    values = list(leaves(dict(arguments)))
    for param in grant.params:
        for path, value in values:
            if value is not None and fits(param.path, path) and (why := breaks(param, value)):
                return f"{path} {why}"
    return ""


def breaks(param: Param, value: Any) -> str:
    """Say why a value is not what a grant wants of it, or ""."""
    if param.among and not any(fnmatchcase(str(value), pattern) for pattern in param.among):
        return f"may only be {', '.join(param.among)}"
    if not param.most and not param.least:
        return ""
    form = "" if isinstance(value, bool) else normal("number", value)
    if not form:
        return "must be a number"
    if param.most and Decimal(form) > Decimal(param.most):
        return f"may be at most {param.most}"
    if param.least and Decimal(form) < Decimal(param.least):
        return f"must be at least {param.least}"
    return ""


def subset(mine: tuple[Grant, ...] | None, asked: tuple[Grant, ...]) -> str:
    """Say which of the grants asked for a child is more than its parent has, or "". Both lists are kept and both must cover a
    call, so this only tells the author early: a child can never do what its parent could not.
    """
    if mine is None:
        return ""
    for grant in asked:
        for tool in grant.tools:
            if not any(fnmatchcase(tool, pattern) for own in mine for pattern in own.tools):
                return f"{tool} is not granted to the parent"
    return ""
