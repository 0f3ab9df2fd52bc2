"""What was said in a session, piece by piece and by turn, and how a model finds in it what its prompt has no more. Pure.

A turn is one answer of the model's, with what the user said before it and what its calls were answered. They are counted from 1 on over the
whole session.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from stanchion.core.block import bare
from stanchion.core.bm25 import Index, terms
from stanchion.core.bundle import BUILT_IN
from stanchion.core.dispatch import unwrapped
from stanchion.core.message import Erased, Label, Message, Text, ToolCall, ToolResult

PIECE = 640
"""Characters of a piece at most."""
PAGE = 3_200
"""Characters that are answered at once: below a thousand tokens, with what stands around them."""
CANDIDATES = 150
"""So many pieces at most are ranked; which, is told by the rarest words of the query."""
ARGUMENTS = 160
_TURNS = re.compile(r"\s*(\d{1,6})\s*(?:(?:-|to|\.\.)\s*(\d{1,6})\s*)?")
_BREAKS = ("\n\n", "\n", ". ", ", ", " ")


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that was said in a session."""

    turn: int
    index: int
    """Of its message in the session."""
    by: str
    """"user", "assistant", "runtime", .. or the call whose result it is."""
    text: str
    label: Label
    tool: str = ""
    """Of a call and of its result."""
    call: ToolCall | None = None
    """Of a result: what was asked."""
    error: bool = False

    @property
    def is_result(self) -> bool:
        """Whether a call was answered with it."""
        return self.call is not None


def said(whole: Sequence[Message], since: int = 0, until: int | None = None) -> Iterator[Said]:
    """List what was said, in order. Reasoning, media and what was erased are left out."""
    turn = sum(message.role == "assistant" for message in whole[:since])
    for index in range(since, len(whole) if until is None else until):
        message = whole[index]
        turn += message.role == "assistant"
        asked = iter(_calls(whole[index - 1]) if index else ())
        for part in message.parts:
            match part:
                case Text() if part.text.strip():
                    by = "assistant" if message.role == "assistant" else part.label.source
                    yield Said(turn + (message.role == "user"), index, by, part.text, part.label)
                case ToolCall():
                    meant = unwrapped(part) or part
                    yield Said(turn, index, "assistant", f"{meant.name}({meant.arguments})", part.label, meant.name)
                case ToolResult():
                    call = next(asked, None) or ToolCall(part.id, part.name, "", part.label)
                    call = unwrapped(call) or call
                    by = f"{call.name}({shortened(call.arguments)})"
                    yield Said(turn, index, by, bare(part.text), part.label, call.name, call, part.error)
                case Erased() if part.kind == "tool_result":
                    next(asked, None)
                case _:
                    pass


def _calls(message: Message) -> list[ToolCall | None]:
    """List the calls of a message in order, with a place for each that was erased."""
    return [
        part if isinstance(part, ToolCall) else None
        for part in message.parts
        if isinstance(part, ToolCall) or (isinstance(part, Erased) and part.kind == "tool_call")
    ]


def shortened(arguments: str) -> str:
    """Give a call's arguments, or their beginning."""
    return arguments if len(arguments) <= ARGUMENTS else f"{arguments[:ARGUMENTS]}.."


class Piece(msgspec.Struct, frozen=True):
    """A part of what was said, short enough to be shown."""

    turn: int
    by: str
    text: str
    label: Label

    @property
    def shown(self) -> str:
        """Give it as it is answered."""
        return f"[turn {self.turn}, {self.by}] {self.text}"


class Found(msgspec.Struct, frozen=True):
    """What a model is answered that reads what was said before."""

    text: str
    labels: tuple[Label, ...] = ()
    """Of what is in it."""
    error: bool = False


def read(whole: Sequence[Message], until: int, query: str, turns: str, page: int) -> Found:
    """Answer the built-in tool from the messages before `until`: the turns that are named, else what answers a query best."""
    if not until:
        return Found("Nothing was left out so far: all that was said stands above.")
    pieces = list(_pieces(whole, until))
    if turns.strip():
        named = _TURNS.fullmatch(turns)
        if named is None:
            return Found('turns: say one turn, as in "12", or some, as in "12-14".', error=True)
        first, last = int(named[1]), int(named[2] or named[1])
        chosen = [piece for piece in pieces if first <= piece.turn <= last]
        nothing = f"Nothing was said in turns {first} to {last} that is not in your prompt."
    elif query.strip():
        chosen = _ranked(pieces, query)
        nothing = "Nothing that was said before has a word of it. Try other words."
    else:
        return Found("Say what you look for as query, or which turns you want to read.", error=True)
    return _page(chosen, page, nothing)


def _pieces(whole: Sequence[Message], until: int) -> Iterator[Piece]:
    for one in said(whole, until=until):
        if one.tool in BUILT_IN or (one.tool and not one.is_result):  # (a result says what was asked)
            continue
        for text in _cut(one.text):
            yield Piece(one.turn, one.by, text, one.label)


def _cut(text: str) -> Iterator[str]:
    """Cut a text where it is best cut."""
    start = 0
    while len(text) - start > PIECE:
        end = next(
            (at + len(mark) for mark in _BREAKS if (at := text.rfind(mark, start + PIECE // 2, start + PIECE)) > 0),
            start + PIECE,
        )
        yield text[start:end].strip()
        start = end
    if rest := text[start:].strip():
        yield rest


def _ranked(pieces: Sequence[Piece], query: str) -> list[Piece]:
    """Rank pieces by BM25. Only those are taken apart that have a rare word of the query: most of a long history has none."""
    texts = [f"{piece.by} {piece.text}".lower() for piece in pieces]
    having: list[tuple[int, list[int]]] = []
    for needle in {_needle(term) for term in terms(query)}:
        numbers = [number for number, text in enumerate(texts) if needle in text]
        if numbers:
            having.append((len(numbers), numbers))
    chosen: dict[int, None] = {}
    for _, numbers in sorted(having):
        if chosen and len(chosen) + len(numbers) > CANDIDATES:
            break
        chosen |= dict.fromkeys(numbers)
    order = sorted(chosen)
    index = Index([[(pieces[number].by, 1.0), (pieces[number].text, 1.0)] for number in order])
    return [pieces[order[place]] for place, _ in index.search(query, CANDIDATES)]


def _needle(term: str) -> str:
    """Give what of a term stands in each word that it is of: endings were taken off it."""
    return term[:-1] if term.isalpha() and term.isascii() and len(term) > 3 else term


def _page(pieces: Iterable[Piece], page: int, nothing: str) -> Found:
    pages: list[list[Piece]] = [[]]
    size = 0
    for piece in pieces:
        length = len(piece.shown) + 1
        if size + length > PAGE and pages[-1]:
            if len(pages) > page:
                break
            pages.append([])
            size = 0
        pages[-1].append(piece)
        size += length
    if page > len(pages) or not pages[page - 1]:
        return Found(nothing if page == 1 else "There is no more of it.")
    shown = pages[page - 1]
    more = f"\n[More with page={page + 1}.]" if len(pages) > page else ""
    return Found("\n".join(piece.shown for piece in shown) + more, tuple(dict.fromkeys(piece.label for piece in shown)))


def label_of(labels: Iterable[Label], name: str) -> Label:
    """Label what was read by the built-in tool `name`: no better than what is in it, and as secret.

    What the model itself said is no worse than the prompt that it stood in.
    """
    known = list(labels)
    others = any(label.trust == "untrusted" and label.source != "model" for label in known)
    return Label("tool", name, "untrusted" if others else "trusted", joined(known))


def joined(labels: Iterable[Label]) -> str:
    """Join levels of secrecy."""
    levels = {level for label in labels for level in label.secrecy.split("+")}
    return "+".join(sorted(levels - {"public"})) or "public"
