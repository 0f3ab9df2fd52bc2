"""Checks of text: the built-in ones, an agent's own, and what a rule makes of what they find. Pure; nothing here raises.

A check that fails, answers with something else than a `Hit`, or is not bound here counts as a hit that blocks, and says so: what could
not be looked at does not go on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal

import msgspec

from stanchion.core.check import About, Hit, TextCheck
from stanchion.core.path import leaves
from stanchion.core.policy import CheckRule, Where
from stanchion.guard import injection, redact
from stanchion.guard.shape import shapes_in

Look = Callable[[str, About], Hit | None]
OnHit = Literal["flag", "redact", "ask", "block"]
_ORDER: Mapping[str, int] = {"pass": 0, "flag": 1, "redact": 2, "ask": 3, "block": 4}


class Found(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a rule makes of a hit."""

    check: str
    action: OnHit
    reason: str
    spans: tuple[tuple[int, int], ...] = ()
    path: str = ""
    """Of a call: the argument that it is about."""


class Checks:
    """The pure checks that are bound to an agent."""

    def __init__(self, own: Iterable[TextCheck] = (), *, skip_missing: bool = False) -> None:
        """`skip_missing`: what is not bound here finds nothing. For who explains a call and lacks the agent's code; never to judge."""
        self._skip_missing = skip_missing
        self._looks: dict[str, Look] = {**BUILT_IN, **{check.name: check.look for check in own}}

    def find(self, rule: CheckRule, text: str, tool: str = "", path: str = "") -> Found | None:
        """Have a text looked at under a rule."""
        look = self._looks.get(rule.uses or rule.name)
        if look is None:
            return (
                None
                if self._skip_missing
                else Found(rule.name, "block", f"there is no check {rule.uses or rule.name!r} here", path=path)
            )
        try:
            hit: Any = look(text, About(rule.where, tool, path, rule.settings))
            if hit is None:
                return None
            action: OnHit = "block" if rule.action == "redact" and not hit.spans else rule.action
            spans = tuple((int(start), int(end)) for start, end in hit.spans) if action == "redact" else ()
            return Found(rule.name, action, _line(hit.reason), spans, path)
        except Exception as error:  # code of an agent's author
            return Found(rule.name, "block", f"the check failed ({type(error).__name__})", path=path)

    def of_text(self, rules: Iterable[CheckRule], text: str, tool: str = "") -> list[Found]:
        """Have a text looked at under rules; those of classifiers are left out."""
        found = (self.find(rule, text, tool) for rule in rules if not rule.classifier)
        return [hit for hit in found if hit is not None]

    def of_call(self, rules: Iterable[CheckRule], tool: str, arguments: Mapping[str, Any]) -> list[Found]:
        """Have each text among a call's arguments looked at; the first hit of a rule stands for it."""
        texts = [(path, value) for path, value in leaves(dict(arguments)) if isinstance(value, str)]
        hits: list[Found] = []
        for rule in rules:
            if not rule.classifier:
                found = (self.find(rule, text, tool, path) for path, text in texts)
                hits += [hit for hit in found if hit is not None][:1]
        return hits


def rules_at(rules: Iterable[CheckRule], where: Where, tool: str = "") -> list[CheckRule]:
    """List the rules of a place that mean a tool."""
    return [
        rule
        for rule in rules
        if rule.where == where and (not tool or any(fnmatchcase(tool, pattern) for pattern in rule.tools))
    ]


def gravest(found: Iterable[Found]) -> Found | None:
    """Find what decides among hits: the strictest, of equals the first."""
    return max(found, key=lambda hit: _ORDER[hit.action], default=None)


def text_of_call(arguments: Mapping[str, Any]) -> str:
    """Give what a call says, as one text for a classifier."""
    return "\n".join(value for _, value in leaves(dict(arguments)) if isinstance(value, str) and value.strip())


def _line(reason: Any) -> str:
    """Words of a check as one short line: they stand in prompts and on screens."""
    return " ".join(str(reason).split())[:200] or "no reason was given"


# --- the built-in checks -------------------------------------------------------------------------------------------------


def size(text: str, about: About) -> Hit | None:
    """A text that is longer than `max_chars`. With "redact" the rest is taken out."""
    most = int(about.settings["max_chars"])
    if len(text) <= most:
        return None
    return Hit(f"{len(text):,} characters, more than {most:,}", ((most, len(text)),))


def injected(text: str, about: About) -> Hit | None:
    """A text that gives orders to a model; `score`: how clearly it must (1.0)."""
    found = injection.traces(text)
    if injection.score_of(found) < float(about.settings.get("score", 1.0)):
        return None
    kinds = ", ".join(dict.fromkeys(trace.name for trace in found))
    return Hit(f"it looks like orders to a model ({kinds})", tuple((trace.start, trace.end) for trace in found))


def exfiltration(text: str, about: About) -> Hit | None:  # noqa: ARG001 - one form for all
    """A text that has the shape of a leak: an image whose address carries data, a long encoded piece, hidden characters."""
    found = shapes_in(text)
    return Hit(found[1]) if found else None


def pattern(text: str, about: About) -> Hit | None:
    """A text in which one of the regular expressions `patterns` is found."""
    spans: list[tuple[int, int]] = []
    for written in about.settings["patterns"]:
        spans += (found.span() for found in _compiled(written).finditer(text))
    return Hit("a pattern that is not allowed", tuple(spans)) if spans else None


def secrets(text: str, about: About) -> Hit | None:  # noqa: ARG001 - one form for all
    """A text with a credential in it: a key, a token, a password. What comes in was redacted before; this is for what goes out."""
    return _detected(redact.found(text, pii=False))


def pii(text: str, about: About) -> Hit | None:
    """A text with personal data in it; `kinds`: of which kinds only ("card", "iban")."""
    known = {(hit.start, hit.end) for hit in redact.found(text, pii=False)}
    kinds = about.settings.get("kinds")
    found = [hit for hit in redact.found(text) if (hit.start, hit.end) not in known]
    return _detected(hit for hit in found if kinds is None or hit.kind in kinds)


def _detected(found: Iterable[redact.Found]) -> Hit | None:
    hits = list(found)
    if not hits:
        return None
    kinds = ", ".join(dict.fromkeys(hit.kind for hit in hits))
    return Hit(f"it holds {kinds}", tuple((hit.start, hit.end) for hit in hits))


@lru_cache(256)
def _compiled(written: str) -> re.Pattern[str]:
    return re.compile(written, re.IGNORECASE)


_SETTINGS = {"size": "max_chars", "injection": "score", "pattern": "patterns", "pii": "kinds"}


def settings_problems(uses: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with the settings of a built-in check."""
    if unknown := set(settings) - {_SETTINGS.get(uses, "")}:
        yield f"settings: {min(unknown)!r} means nothing to it; it takes {_SETTINGS.get(uses, 'none')}"
        return
    most, score, patterns = (settings.get(name) for name in ("max_chars", "score", "patterns"))
    if uses == "size" and not (isinstance(most, int) and most > 0):
        yield f"settings: max_chars must be a whole number above 0, not {most!r}"
    if uses == "injection" and score is not None and not (isinstance(score, int | float) and score > 0):
        yield f"settings: score must be a number above 0, not {score!r}"
    if uses == "pii" and settings and not isinstance(settings.get("kinds"), list | tuple):
        yield f"settings: kinds must be a list of words, not {settings.get('kinds')!r}"
    if uses == "pattern":
        yield from _pattern_problems(patterns)


def _pattern_problems(patterns: Any) -> Iterator[str]:
    if not isinstance(patterns, list | tuple) or not patterns:
        yield f"settings: patterns must be a list of regular expressions, not {patterns!r}"
        return
    for written in patterns:  # pyright: ignore[reportUnknownVariableType]
        try:
            re.compile(written)  # pyright: ignore[reportUnknownArgumentType]
        except (re.error, TypeError) as error:
            yield f"settings: patterns: {written!r} is no regular expression: {error}"


BUILT_IN: Mapping[str, Look] = {
    "size": size,
    "injection": injected,
    "exfiltration": exfiltration,
    "pattern": pattern,
    "secrets": secrets,
    "pii": pii,
}
