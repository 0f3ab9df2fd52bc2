"""What skills forbid: whether a call is within a restriction. Always in force, whether the model opened the skill or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from stanchion.core.path import fits, leaves
from stanchion.core.policy import Param
from stanchion.core.skill import Restriction, Skill
from stanchion.guard.grant import breaks


class Broken(msgspec.Struct, frozen=True):
    """A restriction that a call is not within."""

    skill: str
    rule: Restriction
    text: str
    paths: tuple[str, ...] = ()


def broken(skills: tuple[Skill, ...], tool: str, arguments: Mapping[str, Any]) -> Iterator[Broken]:
    """List what skills have against a call."""
    for skill in skills:
        for rule in skill.restrictions:
            if rule.tool != tool:
                continue
            if not rule.params:
                what = "needs a person's approval" if rule.ask else "is never allowed"
                yield Broken(skill.name, rule, f"by the skill {skill.name} {tool} {what}")
            elif found := _outside(rule, arguments):
                why = "; ".join(text for _, text in found)
                paths = tuple(path for path, _ in found)
                yield Broken(skill.name, rule, f"by the skill {skill.name} {why}", paths)


def _outside(rule: Restriction, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    values = list(leaves(dict(arguments)))
    return [pair for param in rule.params for pair in _breaking(param, values)]


def _breaking(param: Param, values: list[tuple[str, Any]]) -> Iterator[tuple[str, str]]:
    meant = [(path, value) for path, value in values if fits(param.path, path)]
    if not meant and "*" not in param.path:
        yield param.path, f"{param.path} must be given"
    for path, value in meant:
        if value is None:  # a tool may take it for "all of it"
            yield path, f"{path} must be given"
        elif why := breaks(param, value):
            yield path, f"{path} {why}"
