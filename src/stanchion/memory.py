"""What an agent remembers of its users from one session to the next.

    from stanchion.memory import Embeddings, Memory

    Agent(.., memory=Memory(tokens=800, embeddings=Embeddings()), steps={"remember": "anthropic:claude-haiku-4-5"})

Runs that name a user (`Runtime.start(.., user="ann")`) are remembered, others are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from stanchion.core.errors import ConfigError
from stanchion.core.fact import Fact
from stanchion.core.prices import Prices
from stanchion.core.remembered import MemoryRules
from stanchion.model.embedding import Embedded, Embedder, Embeddings, embedding_model

__all__ = ["Embedded", "Embedder", "Embeddings", "Fact", "Memory", "MemoryRules"]

_SPACE = re.compile(r"[a-zA-Z0-9_.:@-]{1,128}")
_MOST_TOKENS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """How much an agent remembers, and by what."""

    tokens: int = 800
    """At most so many tokens (an estimate, on the safe side) of memory stand at the start of a session, or in one answer of
    `recall_memory`."""
    space: str = ""
    """Agents that name the same space share what they remember of a user; "": the agent's own."""
    extract: bool = True
    """After each run a model looks for facts in it (`Agent(steps={"remember": ..})`, else the agent's own model)."""
    recall: bool = True
    """The model has the tool `recall_memory`."""
    remember: bool = False
    """The model has the tool `remember_fact`."""
    notes: bool = False
    """The model has the tool `write_note`."""
    episodes: bool = True
    """What was asked in a run, which tools were called, and how it ended is kept."""
    procedures: int = 3
    """A sequence of tool calls is offered once it has worked so often; 0: never."""
    untrusted: bool = False
    """Facts are also learned from what others wrote (pages, mails, results of tools). They stay untrusted."""
    embeddings: str | Embeddings | Embedder | None = None
    """By what memory is searched by meaning too: a model ("openai:text-embedding-3-small"), or an `Embedder` of one's own. None: by
    words alone."""

    def __post_init__(self) -> None:
        for name, least, most in (("tokens", 100, _MOST_TOKENS), ("procedures", 0, 1_000_000)):
            value: object = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise ConfigError(f"Memory: {name} must be a whole number from {least} to {most:,}, not {value!r}")
        for name in ("extract", "recall", "remember", "notes", "episodes", "untrusted"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"Memory: {name} must be True or False")
        space = cast("object", self.space)
        if not isinstance(space, str) or (space and not _SPACE.fullmatch(space)):
            raise ConfigError(f"Memory: space {space!r}: use 1 to 128 letters, digits and any of _ . : @ -")
        given: Any = self.embeddings
        if isinstance(given, str):
            object.__setattr__(self, "embeddings", Embeddings(given))
        elif given is not None and not (
            callable(getattr(given, "embed", None)) or callable(getattr(given, "open", None))
        ):
            raise ConfigError(f"Memory: embeddings must be provider:model or an Embedder, not {given!r}")

    def rules(self, agent: str, prices: Prices, on_date: str) -> MemoryRules:
        """Make the part of an agent's bundle. Raises `ConfigError` where the price of its embeddings is not known."""
        embeddings = None if self.embeddings is None else embedding_model(self.embeddings, prices, on_date)
        return msgspec.structs.replace(self.by_words(agent), embeddings=embeddings)

    def by_words(self, agent: str) -> MemoryRules:
        """.. without what it is searched by beside words: enough to know its tools."""
        return MemoryRules(
            space=self.space or agent,
            tokens=self.tokens,
            extract=self.extract,
            recall=self.recall,
            remember=self.remember,
            notes=self.notes,
            episodes=self.episodes,
            procedures=self.procedures,
            untrusted=self.untrusted,
        )
