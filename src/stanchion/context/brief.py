"""A request with a brief context: what was asked last, and of all before it only what bears on that. Pure.

It is made anew for its turn, for a model that is not shown the conversation, and reads or busts nobody's prefix. It holds

    system    what it is told about itself, passages of the agent's identity, how to say that this is not enough
    user      passages of the conversation, in order, each with who said it; then what was asked last, whole
    .. since  the last step and its results, as they are where it has tools, else as text

within a number of tokens (estimated, four bytes a token). The passages are those that BM25 ranks best by the questions that are asked, then by
all that is said with them, and a few of what was said just before; what a compaction took out of the prompt is among them, and what the author
declared to be kept stands before them. Untrusted text stands in blocks as
it does elsewhere, and each part keeps its label. What does not fit, or holds media, is not for a brief context.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from stanchion.context.assemble import readable_by, unkept
from stanchion.context.passages import Shelf, passages, questions_in
from stanchion.core.block import EXPLANATION, bare, marked
from stanchion.core.bundle import Bundle, Route
from stanchion.core.conversation import history
from stanchion.core.message import (
    DEVELOPER,
    RUNTIME,
    Label,
    Media,
    Message,
    ModelRequest,
    Part,
    Text,
    ToolCall,
    ToolResult,
    ToolSchema,
)
from stanchion.core.routing import ESCALATE, Rung
from stanchion.core.state import State
from stanchion.core.terse import shown_parameters

BYTES_PER_TOKEN = 4
TEXT_BYTES = 8
"""What a text of its own adds to its bytes, about."""
HISTORY_CHARS = 1_000_000
"""Of the conversation, from its end, that passages are chosen from."""
LATEST = 2
"""Passages of what was said just before, which a question may be about without naming it: at most a quarter of the room."""
NOTE = (
    "You are shown a part of your instructions and of a longer conversation: what seems to bear on the newest message. If that is not "
    f"enough to answer rightly, or if something must be done that you have no tool for, answer with {ESCALATE} and the reason in a line, "
    "and nothing else; somebody who sees everything then answers. Do not guess."
)
_EARLIER = "[runtime] From earlier in the conversation, in order:"
_ASKED = "[runtime] The newest message:"
_SPOKEN = frozenset({"user", "document", "developer"})


class Asked(msgspec.Struct, frozen=True):
    """A conversation, taken apart at what was asked last."""

    before: tuple[Message, ...]
    parts: tuple[Part, ...]
    since: tuple[Message, ...]
    """The last step after it, with its results; steps before that one stand in `before`."""

    @property
    def text(self) -> str:
        """What was asked, as text."""
        return "\n".join(part.text for part in self.parts if isinstance(part, Text))


class Passage(msgspec.Struct, frozen=True):
    """A piece of the conversation."""

    who: str
    text: str
    label: Label


def asked(messages: Sequence[Message]) -> Asked | None:
    """Find what was asked last, or None."""
    for number in range(len(messages) - 1, -1, -1):
        message = messages[number]
        said = tuple(part for part in message.parts if not isinstance(part, ToolResult))
        if message.role == "user" and any(_is_spoken(part) for part in said):
            results = tuple(part for part in message.parts if isinstance(part, ToolResult))
            after = tuple(messages[number + 1 :])
            last = len(after) - 2 if after and after[-1].role == "user" else len(after) - 1
            before = (*messages[:number], *((Message("user", results),) if results else ()), *after[: max(last, 0)])
            return Asked(before, said, after[max(last, 0) :])
    return None


def _is_spoken(part: Part) -> bool:
    return isinstance(part, Text | Media) and part.label.source in _SPOKEN


def brief(state: State, bundle: Bundle, rung: Rung, route: Route) -> ModelRequest | None:
    """Make the request, or None where there is no room for what it must hold, or it holds what cannot be cut."""
    found = asked(history(state))
    if found is None or (found.since and found.since[-1].role == "assistant"):
        return None
    if any(isinstance(part, Media) for part in _parts((*found.since, Message("user", found.parts)))):
        return None
    tools = tuple(
        ToolSchema(spec.name, spec.description, shown_parameters(spec), spec.strict)
        for spec in bundle.tools
        if spec.name in rung.tools
    )
    since = readable_by(f"{route.provider}:{route.model}", state.reasoners, found.since)
    told = () if tools else tuple(_told(since))
    system, opening = _system(bundle, rung, mark=state.mark)
    held = _size((*system, *found.parts, *told)) + len(msgspec.json.encode((tools, since if tools else ())))
    room = rung.context_tokens * BYTES_PER_TOKEN - held - 2 * TEXT_BYTES - len(_EARLIER) - len(_ASKED)
    if room < 0:
        return None
    declared = tuple(part for part in state.declared if isinstance(part, Text))
    if _size(declared) > room // 4:
        declared = ()
    known, earlier = _chosen(state, bundle.identity, opening, found, room - _size(declared))
    earlier = (*declared, *earlier)
    head = (Text(_EARLIER, RUNTIME), *earlier, Text(_ASKED, RUNTIME)) if earlier else ()
    messages = (Message("user", (*head, *found.parts, *told)), *(since if tools else ()))
    return ModelRequest(
        model=route.model,
        messages=messages,
        max_output_tokens=route.max_output_tokens,
        system=(*system[:1], *known, *system[1:]),
        tools=tools,
        parallel_tool_calls=bundle.parallel_tool_calls,
        temperature=route.temperature,
        top_p=route.top_p,
        thinking_tokens=route.thinking_tokens,
        effort=route.effort,
        options=unkept(route),
    )


def _system(bundle: Bundle, rung: Rung, *, mark: bool) -> tuple[tuple[Text, ...], int]:
    """Make what always stands first; and how many passages of the identity are in it."""
    opening = passages(bundle.identity)[:1]
    said = rung.identity or "".join(opening) or "You answer for an assistant."
    form = bundle.output
    note = (
        NOTE
        if form is None
        else f"{NOTE} An answer is JSON of this schema, and nothing around it: {_json(form.schema)}"
    )
    texts = (Text(said, DEVELOPER), *((Text(EXPLANATION, RUNTIME),) if mark else ()), Text(note, RUNTIME))
    return texts, 0 if rung.identity else len(opening)


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def _chosen(
    state: State, identity: str, opening: int, found: Asked, room: int
) -> tuple[tuple[Text, ...], tuple[Text, ...]]:
    """Choose passages of the identity and of the conversation, best first until there is no room; give them in their order."""
    fixed, said = passages(identity), _said(found.before)
    taken: set[tuple[int, int]] = set()
    latest = [(1, number) for number in range(len(said) - 1, max(len(said) - 1 - LATEST, -1), -1)]
    shelf, questions = Shelf(identity, [each.text for each in said]), questions_in(found.text)
    asked_for = shelf.ranked(questions) if questions else []
    best = shelf.ranked(found.text)
    left = room
    for places, share in ((latest, room // 4), (asked_for, room * 2 // 3), (best, room)):
        spare = min(share, left)
        for place in places:
            weight = _weight(fixed, said, place)
            if place in taken or weight > spare or place < (0, opening):
                continue
            taken.add(place)
            spare, left = spare - weight, left - weight
    known = "\n..\n".join(fixed[number] for place, number in sorted(taken) if place == 0)
    earlier = [(number, said[number]) for place, number in sorted(taken) if place == 1]
    return ((Text(known, DEVELOPER),) if known else ()), tuple(_texts(state, earlier))


def _weight(fixed: Sequence[str], said: Sequence[Passage], place: tuple[int, int]) -> int:
    if place[0] == 0:
        return len(fixed[place[1]].encode()) + 4
    passage = said[place[1]]
    block = 80 if passage.label.trust == "untrusted" and passage.label.source == "tool" else 0
    return len(passage.text.encode()) + len(passage.who) + TEXT_BYTES + block


def _texts(state: State, earlier: Iterable[tuple[int, Passage]]) -> Iterator[Text]:
    """Write passages: neighbours of one label as one text, an untrusted result in a block of its own."""
    lines: list[str] = []
    label: Label | None = None
    for number, passage in earlier:
        untrusted = passage.label.source == "tool" and passage.label.trust == "untrusted"
        if lines and label is not None and (label != passage.label or untrusted):
            yield Text("\n".join(lines), label)
            lines = []
        text = passage.text
        if untrusted and state.mark:
            text = marked(text, f"{state.session}/{state.run}/{state.totals.turns}/{number}", passage.label.name)
        label = passage.label
        lines.append(f"{passage.who}: {text}")
    if lines and label is not None:
        yield Text("\n".join(lines), label)


def _said(messages: Sequence[Message]) -> list[Passage]:
    """Cut what was said into passages, the latest of it if it is much."""
    found: list[Passage] = []
    left = HISTORY_CHARS
    for message in reversed(messages):
        if left <= 0:
            break
        here = [Passage(who, text, label) for who, whole, label in _spoken(message) for text in passages(whole)]
        left -= sum(len(passage.text) for passage in here)
        found += reversed(here)
    return found[::-1]


def _spoken(message: Message) -> Iterator[tuple[str, str, Label]]:
    for part in message.parts:
        match part:
            case Text() if part.label.source != "runtime":
                who = part.label.source if part.label.source in ("document", "memory") else message.role
                yield who, part.text, part.label
            case ToolResult():
                yield f"result of {part.name}", bare(part.text), part.label
            case ToolCall():
                yield "assistant called", f"{part.name}({part.arguments})", part.label
            case _:
                pass


def _told(messages: Iterable[Message]) -> Iterator[Text]:
    """Tell of a step as text, for a model that has no tools."""
    for message in messages:
        for part in message.parts:
            match part:
                case Text():
                    who = "" if part.label.source == "runtime" else f"{message.role}: "
                    yield Text(f"{who}{part.text}", part.label)
                case ToolCall():
                    yield Text(f"assistant called {part.name}({part.arguments})", part.label)
                case ToolResult():
                    yield Text(f"result of {part.name}: {part.text}", part.label)
                case _:
                    pass


def _parts(messages: Iterable[Message]) -> Iterator[Part]:
    for message in messages:
        for part in message.parts:
            yield part
            if isinstance(part, ToolResult):
                yield from part.media


def _size(parts: Iterable[Part]) -> int:
    return sum(len(part.text.encode()) + TEXT_BYTES for part in parts if isinstance(part, Text))
