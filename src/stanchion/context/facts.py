"""What stands for the beginning of a conversation word for word, whatever a model sums up: taken by code, and bounded. Pure.

    declared      values of results, and what patterns find, that the author wants kept: never left out, however many there are
    remembered    what was known of the user before
    the goal      what the user said first
    by rank       what people decided, what was done and what was not; what the user said last; what they demanded; ids, amounts, dates,
                  addresses in what they said. As much of it as there is room for, the newest first
    summary       by a model; where it differs from the words, the words hold

Each keeps the label of what it is from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from stanchion.context.history import Said, joined, said, shortened
from stanchion.context.wording import DEMAND, sentences, values
from stanchion.core.block import marked
from stanchion.core.bundle import BUILT_IN, Bundle, CompactionRules
from stanchion.core.conversation import history
from stanchion.core.message import MODEL, RUNTIME, USER, Label, Message, Part, Text
from stanchion.core.path import select
from stanchion.core.state import State

GOAL = 2_000
"""Characters of what the user said first."""
NEWEST, NEWEST_CHARS = 3, 600
"""So much of what the user said last."""
VALUE = 200
"""Characters of a value."""
VALUES = 64
"""Values that one path finds in one result, and one pattern in one text."""
BYTES = 4
"""Characters of a token, for bounds that are no bounds of money."""


class Line(msgspec.Struct, frozen=True):
    """Something to be kept, with its turn."""

    turn: int
    text: str
    rank: int


def head(
    state: State, bundle: Bundle, rules: CompactionRules, covers: int, summary: tuple[Part, ...] | None
) -> tuple[tuple[Part, ...], int]:
    """Make what stands for the messages before `covers`: its parts, and how many of them, from the first on, are declared.

    `summary`: what a model wrote; None: nothing new, so that its last one stays.
    """
    whole = history(state)
    spoken = list(said(whole, until=covers))
    fresh = declared(state, rules, whole, covers)
    turns = spoken[-1].turn if spoken else 0
    users = [one for one in spoken if one.label.source == "user"]
    chosen = _within(_lines(state, bundle, spoken, users, covers), rules.facts * BYTES)
    theirs = [Line(users[0].turn, _cut(users[0].text, GOAL), 0)] if users else []
    theirs += [line for line in chosen if line.rank in _USER]
    parts: list[Part] = [*fresh, Text(_intro(turns), RUNTIME), *_remembered(whole, covers)]
    if theirs:
        parts.append(Text("[what the user said, word for word]\n" + _listed(theirs), USER))
    if done := [line for line in chosen if line.rank not in _USER]:
        parts.append(Text("[what was decided and done]\n" + _listed(done), MODEL))
    if summary is None:
        parts += state.summary
    elif summary:
        parts.append(_summed(state, spoken, turns, summary[-1]))
    return tuple(parts), len(fresh)


def _remembered(whole: Sequence[Message], covers: int) -> Iterator[Part]:
    """Give what was known of the user when the session began: it is bounded, and stays as it is."""
    for message in whole[:covers]:
        yield from (part for part in message.parts if isinstance(part, Text) and part.label.source == "memory")


def _intro(turns: int) -> str:
    return (
        f"[runtime] To save room turns 1 to {turns} are left out here. In their place stand values that are kept, what the user said and "
        "what was done, word for word, and a summary by a model, which may be wrong: where they differ, the words hold. read_history finds "
        "whatever was said."
    )


def _summed(state: State, spoken: Sequence[Said], turns: int, summary: Part) -> Part:
    """Give a summary, in a block if text of others went into it: that a model repeats their words does not make them ours."""
    if not isinstance(summary, Text):
        return summary  # it was erased
    text = summary.text.strip()
    if state.mark and _has_others(spoken):
        text = marked(text, f"{state.session}/{state.run}/summary/{turns}", "a summary")
    label = Label("model", secrecy=joined([summary.label, *(one.label for one in spoken)]))
    return Text(f"[summary of turns 1 to {turns}, by a model]\n{text}", label)


def _has_others(spoken: Iterable[Said]) -> bool:
    return any(one.label.trust == "untrusted" and one.label.source != "model" for one in spoken)


# --- declared by the author ---------------------------------------------------------------------------------------------


def declared(state: State, rules: CompactionRules, whole: Sequence[Message], covers: int) -> tuple[Part, ...]:
    """Give the declared values of what is left out now and was not before; each once in a session."""
    known = {
        line.rpartition(" (turn ")[0]
        for part in state.declared
        if isinstance(part, Text)
        for line in part.text.split("\n")
    }
    found: dict[Label, list[str]] = {}
    for turn, label, text in (*_of_paths(state, rules, whole, covers), *_of_patterns(state, rules, whole, covers)):
        line = f"- {text}"
        if line not in known:
            known.add(line)
            found.setdefault(label, []).append(f"{line} (turn {turn})")
    return tuple(
        Text(_block(state, label, "[kept]\n" + "\n".join(lines), covers), label) for label, lines in found.items()
    )


def _block(state: State, label: Label, text: str, covers: int) -> str:
    if not state.mark or label.source != "tool" or label.trust != "untrusted":
        return text
    return marked(text, f"{state.session}/{state.run}/kept/{covers}/{label.name}", label.name)


def _of_paths(
    state: State, rules: CompactionRules, whole: Sequence[Message], covers: int
) -> Iterator[tuple[int, Label, str]]:
    """List the values at declared paths of results, as (turn, label, "tool.path = value")."""
    wanted: dict[str, list[str]] = {}
    for path in rules.keep:
        tool, _, rest = path.partition(".")
        wanted.setdefault(tool, []).append(rest)
    turns = _Turns(whole)
    for seen in state.seen if wanted else ():
        if seen.tool not in wanted or seen.sealed or not state.covers <= seen.messages < covers:
            continue
        value = _json(seen.text)
        for path in wanted[seen.tool]:
            for place, leaf in list(select(value, path))[:VALUES]:
                if leaf is not None and leaf != "":
                    yield turns.of(seen.messages), seen.label, f"{seen.tool}.{place} = {_plain(leaf)}"


def _of_patterns(
    state: State, rules: CompactionRules, whole: Sequence[Message], covers: int
) -> Iterator[tuple[int, Label, str]]:
    """List what declared patterns find in what the user says and in results, as (turn, label, value)."""
    if not rules.patterns:
        return
    turns = _Turns(whole)
    texts = [(one.turn, one.label, one.text) for one in said(whole, state.covers, covers) if one.label.source == "user"]
    texts += [
        (turns.of(seen.messages), seen.label, seen.text)
        for seen in state.seen
        if state.covers <= seen.messages < covers and not seen.sealed and seen.tool not in BUILT_IN
    ]
    for turn, label, text in sorted(texts, key=lambda one: one[0]):
        for pattern in map(_compiled, rules.patterns):
            for found in list(pattern.finditer(text))[:VALUES]:
                if value := (found[1] if pattern.groups else found[0]):
                    yield turn, label, _plain(value)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


class _Turns:
    """In which turn a result stands."""

    def __init__(self, whole: Sequence[Message]) -> None:
        self._upto = [0]
        for message in whole:
            self._upto.append(self._upto[-1] + (message.role == "assistant"))

    def of(self, index: int) -> int:
        return self._upto[min(index, len(self._upto) - 1)]


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return text


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _cut(" ".join(text.split()), VALUE)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 2]}.."


# --- by rank ------------------------------------------------------------------------------------------------------------

_DECIDED, _UNDONE, _NEWEST, _DONE, _DEMANDED, _MENTIONED = range(1, 7)
_USER = frozenset({0, _NEWEST, _DEMANDED, _MENTIONED})


def _lines(state: State, bundle: Bundle, spoken: Sequence[Said], users: Sequence[Said], covers: int) -> Iterator[Line]:
    """List what may be kept, each once, with its rank."""
    turns = _Turns(history(state))
    for each in state.judgments:
        if each.messages <= covers:
            asked = f"{each.tool}({shortened(each.arguments)})"
            yield Line(turns.of(each.messages), f"{each.by} decided {each.decision}: {asked}", _DECIDED)
    for one in spoken:
        spec = bundle.tool(one.tool) if one.is_result else None
        if spec is not None and spec.effect != "read":
            yield _effect(one)
    later = users[1:]
    for one in later[-NEWEST:]:
        yield Line(one.turn, _cut(one.text.strip(), NEWEST_CHARS), _NEWEST)
    for one in later[:-NEWEST]:
        yield from _of_user(one)


def _effect(one: Said) -> Line:
    """Say what became of a call with an effect. What the runtime said of it is ours; what a tool said of its failure is not told."""
    if not one.error:
        return Line(one.turn, f"done: {one.by}", _DONE)
    why = _cut(one.text, VALUE) if one.label.source == "runtime" else "it failed"
    return Line(one.turn, f"not done: {one.by}: {why}", _UNDONE)


def _of_user(one: Said) -> Iterator[Line]:
    """Take out of what a user said what they demand, and the values in the rest."""
    named: list[str] = []
    for sentence in sentences(one.text):
        if DEMAND.search(sentence) and len(sentence) <= 2 * VALUE:
            yield Line(one.turn, sentence, _DEMANDED)
        else:
            named += values(sentence)
    if named:
        yield Line(one.turn, ", ".join(dict.fromkeys(_cut(value, VALUE) for value in named)), _MENTIONED)


def _within(lines: Iterable[Line], room: int) -> list[Line]:
    """Choose by rank, and in each the newest first, as many as there is room for; give them in order."""
    chosen: dict[str, Line] = {}
    for line in sorted(lines, key=lambda line: (line.rank, -line.turn)):
        if line.text not in chosen and len(line.text) + 16 <= room:
            room -= len(line.text) + 16
            chosen[line.text] = line
    return sorted(chosen.values(), key=lambda line: line.turn)


def _listed(lines: Iterable[Line]) -> str:
    return "\n".join(f"- {line.text} (turn {line.turn})" for line in lines)
