"""How facts are told to a model, and which of many are: by words, by meaning, by age and by how sure they are. Pure.

Text is ranked by BM25 (`core.bm25`), meaning by the cosine of embeddings where there are some; the two orders are joined by
reciprocal rank (Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
Methods", SIGIR 2009). All of a user's rows are looked at: there are thousands at most, and what stands in no index can be erased.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from stanchion.core.block import marked
from stanchion.core.bm25 import search_once
from stanchion.core.cosine import nearest
from stanchion.core.embedding import EmbeddingModel
from stanchion.core.fact import Fact
from stanchion.core.message import Label, Text

RANK_CONSTANT = 60
"""Of the fusion, as its authors chose it."""
HALF_LIFE_MS = 180 * 24 * 3_600_000
"""After so long without being said again a fact counts half as much for recency; recency is at most half of its weight."""
NEAR = 0.25
"""Cosines below this are no likeness."""
LISTED = 64
"""Of each order that are joined."""
BYTES_PER_TOKEN = 3
"""For the cap, on the safe side: prose has about four."""
HEADING = "[memory] Known of this user from before, and since when it holds:"
OTHERS = "Notes, and what others wrote; not verified:"
_BLOCK_BYTES = 64
"""Of a block's head and foot."""
_LEAST_BYTES = len("- :  =  (since 2026-01-01)\n")
"""Of a fact's line, beside what it says."""


class MemoryRules(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an agent remembers of its users. Part of its bundle."""

    space: str
    """Agents of one space share what they remember."""
    tokens: int = 800
    """At most so many are put into a prompt at once (an estimate, on the safe side)."""
    extract: bool = True
    """After a run a model looks for facts in it."""
    recall: bool = True
    """The model has a tool to search what is remembered."""
    remember: bool = False
    """It has a tool to remember a fact at once."""
    notes: bool = False
    """It has a tool to write notes for itself."""
    episodes: bool = True
    """What happened in a run is kept: what was asked, which tools were called, how it ended."""
    procedures: int = 3
    """A sequence of tool calls is offered after it has worked so often; 0: never."""
    untrusted: bool = False
    """Facts are also learned from what others wrote, and stay untrusted."""
    embeddings: EmbeddingModel | None = None
    """By what it is searched by meaning; None: by words alone. Earlier bundles do not say."""


def fitting(facts: Iterable[Fact], tokens: int) -> list[Fact]:
    """Choose facts in their order, as far as what is told of them fits."""
    left = tokens * BYTES_PER_TOKEN
    chosen: list[Fact] = []
    begun: set[bool] = set()
    for fact in facts:
        trusted = fact.trust != "untrusted"
        head = 0 if trusted in begun else len(HEADING) if trusted else len(OTHERS) + _BLOCK_BYTES
        if fact.kind == "fact" and head + _LEAST_BYTES + len(fact.subject) + len(fact.attribute) > left:
            continue  # (of thousands, most)
        size = head + len(line(fact).encode()) + 1
        if size <= left:  # a long one does not keep a short one out
            left -= size
            begun.add(trusted)
            chosen.append(fact)
    return chosen


def told(facts: Iterable[Fact], tokens: int, *, place: str, space: str) -> tuple[Text, ...]:
    """Tell facts in their order, as far as they fit: what may be trusted, then what may not, in a block of its own.

    `place` names where it stands ("session/run"); "" makes no block.
    """
    lines: dict[bool, list[Fact]] = {True: [], False: []}
    for fact in fitting(facts, tokens):
        lines[fact.trust != "untrusted"].append(fact)
    parts: list[Text] = []
    if lines[True]:
        text = "\n".join((HEADING, *map(line, lines[True])))
        trust = "trusted" if all(fact.trust == "trusted" for fact in lines[True]) else "user"
        parts.append(Text(text, Label("memory", space, trust, _secrecy(lines[True]))))
    if lines[False]:
        text = "\n".join((OTHERS, *map(line, lines[False])))
        text = marked(text, place, "memory") if place else f"[memory] {text}"
        parts.append(Text(text, Label("memory", space, "untrusted", _secrecy(lines[False]))))
    return tuple(parts)


def line(fact: Fact) -> str:
    """Tell one fact in a line."""
    value = " ".join(fact.value.split())
    match fact.kind:
        case "fact":
            until = f" until {day(fact.valid_to_ms)}" if fact.valid_to_ms else ""
            return f"- {fact.subject}: {fact.attribute} = {value} (since {day(fact.valid_from_ms)}{until})"
        case "note":
            return f"- note {fact.attribute}: {value}"
        case "episode":
            return f"- on {day(fact.valid_from_ms)}: {value}"
        case "procedure":
            return f"- worked {fact.count} times: {fact.attribute} (as for: {value})"


def values_in(text: str) -> list[str]:
    """Read the values of facts in what was told: nothing else of a line is in anybody's words but the model's."""
    facts = (one.partition(" = ") for one in text.splitlines() if one.startswith("- "))
    return [value.rpartition(" (since ")[0] for name, equals, value in facts if equals and ": " in name]


def day(at_ms: int) -> str:
    """Write a time as its UTC date."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()


def _secrecy(facts: Iterable[Fact]) -> str:
    levels = {level for fact in facts for level in fact.secrecy.split("+")} - {"public"}
    return "+".join(sorted(levels)) or "public"


def words(fact: Fact) -> str:
    """What of a fact is searched, and embedded."""
    return f"{fact.subject} {fact.attribute} {fact.value}".strip()


def profile(facts: Iterable[Fact], now_ms: int, rules: MemoryRules, *, untrusted: bool) -> list[Fact]:
    """Choose what stands at the beginning of a session: facts, notes and procedures that hold now, the weightiest first."""
    shown = [
        fact for fact in facts
        if fact.kind != "episode" and fact.holds(now_ms) and offered(fact, rules) and (untrusted or fact.trust != "untrusted")
    ]  # fmt: skip
    order = {"fact": 0, "note": 1, "procedure": 2, "episode": 3}
    return sorted(
        shown, key=lambda fact: (order[fact.kind], -weight(fact, now_ms), fact.subject, fact.attribute, fact.id)
    )


def offered(fact: Fact, rules: MemoryRules) -> bool:
    """Whether a fact is told at all: a procedure is once it has worked often enough."""
    return fact.kind != "procedure" or 0 < rules.procedures <= fact.count


def weight(fact: Fact, now_ms: int) -> float:
    """How much a fact counts by its age and by how sure it is, from 0.25 to 1."""
    age = max(now_ms - max(fact.recorded_ms, fact.valid_from_ms), 0)
    sure = min(max(fact.confidence, 0.0), 1.0)
    return (0.5 + 0.5 * sure) * (0.5 + 0.5 * 0.5 ** (age / HALF_LIFE_MS))


def search(facts: Sequence[Fact], query: str, vector: Sequence[float], now_ms: int) -> list[Fact]:
    """Order the facts that answer a query, best first. `vector`: the query's embedding; empty: words alone."""
    scores: dict[int, float] = {}
    by_words = [number for number, _ in search_once(map(words, facts), query, LISTED)]
    near = nearest([fact.vector for fact in facts], vector, LISTED, least=NEAR) if vector else []
    for order in (by_words, [number for number, _ in near]):
        for rank, number in enumerate(order, start=1):
            scores[number] = scores.get(number, 0.0) + 1 / (RANK_CONSTANT + rank)
    weighed = [(-score * weight(facts[number], now_ms), number) for number, score in scores.items()]
    return [facts[number] for _, number in sorted(weighed)]
