"""How an agent's long conversations are compacted, in the words of its author.

from stanchion.compaction import Compaction

Agent(.., compaction=Compaction(keep=["get_order.order_id"]), steps={"summarise": "anthropic:claude-haiku-4-5"})
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal

from stanchion.core.bundle import CompactionRules
from stanchion.core.errors import ConfigError

__all__ = ["Compaction"]

_LEAST = {"recent": 1, "minimum_tokens": 0, "summary_tokens": 64, "facts_tokens": 0}


@dataclass(frozen=True, slots=True)
class Compaction:
    """The beginning of a long conversation is left out of the prompt; the model can read it with `read_history`.

    A model (`steps["summarise"]`, else the agent's own) sums it up; code puts beside it, word for word, what the user said and what was done.
    """

    when: Literal["auto", "room"] = "auto"
    """"auto": as soon as it pays by the prices, and before the context is full; "room": only then."""
    recent: int = 4
    """So many of the model's last turns stay as they are."""
    minimum_tokens: int = 4_000
    """Less than this is not left out for the money's sake."""
    summary_tokens: int = 1_000
    """At most so long a summary."""
    facts_tokens: int = 1_000
    """At most so much of what the user said and what was done, beside the goal and what is kept."""
    keep: Sequence[str] = ()
    """Values of results that stay in the prompt for ever, as "tool.path": "get_order.order_id", "get_order.items.*.sku"."""
    patterns: Sequence[str] = ()
    """Regular expressions: what they find in what the user says and in results stays for ever (their first group, if there is one)."""

    def __post_init__(self) -> None:
        where = "Compaction"
        if self.when not in ("auto", "room"):
            raise ConfigError(f'{where}: when must be "auto" or "room", not {self.when!r}')
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{where}: {name} must be a whole number of {least} or more, not {value!r}")
        for name in ("keep", "patterns"):
            given = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, Sequence):
                raise ConfigError(f"{where}: {name} must be a list of strings, not {given!r}")
        for path in self.keep:
            if not isinstance(path, str) or not all(path.partition(".")[::2]):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigError(
                    f'{where}: keep: {path!r} must be a tool and a path in its result, as in "get_order.order_id"'
                )
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise ConfigError(f"{where}: patterns: {pattern!r} is no regular expression: {error}") from error

    def rules(self, agent: str, tools: Container[str]) -> CompactionRules:
        """Make the rules of a bundle. Raises `ConfigError` where `keep` names a tool that the agent does not have."""
        for path in self.keep:
            tool = path.partition(".")[0]
            if tool not in tools:
                raise ConfigError(f"agent {agent!r}: Compaction: keep: {path!r}: it has no tool {tool!r}")
        return CompactionRules(
            when=self.when,
            recent=self.recent,
            minimum=self.minimum_tokens,
            summary=self.summary_tokens,
            facts=self.facts_tokens,
            keep=tuple(self.keep),
            patterns=tuple(self.patterns),
        )
