"""What the tools of a suite mean to the guard. A policy is a mapping of tools to meanings and nothing else.

It is written from what the tools say they do; no task, no injection and nobody's name is in it. A parameter that nothing is said of
is content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stanchion.core.bundle import EffectTier, ToolSpec
from stanchion.core.policy import Bound, Content, Destination, Level, ResultField, Role

EMAIL, URL, FILE, MESSAGE, EVENT = (Destination(kind) for kind in ("email", "url", "file", "message", "event"))
USER, CHANNEL, ACCOUNT, PAYMENT = (Destination(kind) for kind in ("user", "channel", "account", "payment"))
DATE = Bound("date")
STORED = Content(links="free")
"""Text that is only kept where the user keeps it, or only looked up: nobody is reached by what stands in it."""


class Meaning(msgspec.Struct, frozen=True):
    """A tool's tier, the roles of its parameters, and what its results hold."""

    effect: EffectTier = "read"
    params: Mapping[str, Role] = {}
    result: Mapping[str, ResultField] = {}


class Policy(msgspec.Struct, frozen=True):
    """The meanings of a suite's tools, and who may see what."""

    tools: Mapping[str, Meaning]
    levels: tuple[Level, ...] = ()


def ids(kind: str, path: str) -> dict[str, ResultField]:
    """Say that a path of a result holds ids of one's own records."""
    return {path: ResultField(kind, trusted=True)}


def spec(name: str, description: str, parameters: Mapping[str, Any], meaning: Meaning) -> ToolSpec:
    """Make the tool as the loop knows it."""
    return ToolSpec(
        name=name,
        description=description,
        parameters=parameters,
        effect=meaning.effect,
        params=meaning.params,
        result=meaning.result,
    )
