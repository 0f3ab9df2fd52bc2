"""The moderation endpoint of the simulated provider: it flags what a script's rules say, and what the request's text names.

    POST /v1/moderations    {"model": "omni-moderation-latest", "input": "text" or a list of texts}

A rule's `pattern` is searched for in each text; all rules that match count. With `status` it answers that error instead, `times` times,
which is how a provider that is away is played.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from stanchion.core.errors import ConfigError
from stanchion.sim.exchange import Refusal, digest_of

CATEGORIES: tuple[str, ...] = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_LOW = 0.0001


class ModerationRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Texts that are flagged, or refused."""

    pattern: str
    categories: tuple[str, ...] = ("harassment",)
    score: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.98
    """At 0.5 or more the categories count as flagged."""
    status: int = 0
    """Answer with this HTTP status instead; 0: answer."""
    times: int = 0
    """Do so for the first so many requests only; 0: for all."""


class _Request(msgspec.Struct):
    input: str | tuple[str | dict[str, Any], ...]
    model: str = "omni-moderation-latest"


class Moderations:
    """Answers, and counts how often each rule has failed a request."""

    def __init__(self) -> None:
        self._struck: dict[int, int] = {}
        self.requests = 0

    def clear(self) -> None:
        """Forget the counts."""
        self._struck.clear()
        self.requests = 0

    def answer(self, rules: Sequence[ModerationRule], body: bytes) -> dict[str, Any]:
        """Answer a request. Raises `Refusal`."""
        self.requests += 1
        try:
            asked = msgspec.json.decode(body, type=_Request)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Refusal(f"this is no moderation request: {error}", status=400) from None
        texts = [asked.input] if isinstance(asked.input, str) else [_text(item) for item in asked.input]
        if not texts or not any(texts):
            raise Refusal("input must not be empty", status=400)
        for place, rule in enumerate(rules):
            if rule.status and any(re.search(rule.pattern, text) for text in texts):
                self._strike(place, rule)
        return {
            "id": f"modr-sim{digest_of('moderations', body)}",
            "model": asked.model,
            "results": [_result(rules, text) for text in texts],
        }

    def _strike(self, place: int, rule: ModerationRule) -> None:
        struck = self._struck.get(place, 0)
        if not rule.times or struck < rule.times:
            self._struck[place] = struck + 1
            raise Refusal("the simulated moderation endpoint fails, as its script says", status=rule.status)


def check_moderations(rules: Sequence[ModerationRule]) -> None:
    """Find rules that cannot work, before a request meets them. Raises `ConfigError`."""
    for place, rule in enumerate(rules):
        try:
            re.compile(rule.pattern)
        except re.error as error:
            raise ConfigError(
                f"moderations[{place}].pattern: {rule.pattern!r} is no regular expression: {error}"
            ) from None
        if unknown := set(rule.categories) - set(CATEGORIES):
            known = ", ".join(CATEGORIES)
            raise ConfigError(f"moderations[{place}].categories: {min(unknown)!r} is none of {known}")


def _text(item: str | dict[str, Any]) -> str:
    return item if isinstance(item, str) else str(item.get("text", ""))


def _result(rules: Sequence[ModerationRule], text: str) -> dict[str, Any]:
    scores = dict.fromkeys(CATEGORIES, _LOW)
    for rule in rules:
        if not rule.status and re.search(rule.pattern, text):
            scores |= {name: max(scores[name], rule.score) for name in rule.categories}
    named = {name: score >= 0.5 for name, score in scores.items()}
    return {
        "flagged": any(named.values()),
        "categories": named,
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }
