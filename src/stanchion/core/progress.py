"""How far a run is: what a forecast of its cost goes by. From its state, or from its events without their contents; both say the same.

A run is looked at *between two turns*: a model call was answered, its tool calls have their results, and the next one has not left.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from stanchion.core import event as ev
from stanchion.core.chain import Outline, PartRef
from stanchion.core.message import Part, Text, ToolResult
from stanchion.core.state import State

_encode = msgspec.json.Encoder().encode
_ENDS = ("done", "escalated")
"""How runs end that came to their end. Others were stopped: what they would have cost is not known."""

_SAID_AGAIN = (ev.RunFinished, ev.BudgetOverrun)
"""Events with a cost that others have said before."""


class Progress(msgspec.Struct, frozen=True):
    """How far a run is. Money in nano-dollars."""

    turns: int = 0
    """Model calls that were answered."""
    cost: int = 0
    """Settled until then."""
    tokens: int = 0
    """Input of the run's last request, as its provider counted it."""
    tool_calls: int = 0
    """That were started."""
    result_bytes: int = 0
    """What tools answered, as far as it is shown."""
    input_bytes: int = 0
    """What was said to the run."""


class Course(msgspec.Struct, frozen=True):
    """A run that came to its end: what it cost, and how far it was before each of its turns."""

    group: str
    """Runs of one group are alike for reasons that others do not share: its session."""
    cost: int
    steps: tuple[Progress, ...]
    """Number k: after k turns."""


def progress_of(state: State) -> Progress:
    """Say how far a run is."""
    totals = state.totals
    return Progress(
        totals.turns, totals.cost, totals.last_tokens, totals.tool_calls, totals.result_bytes, totals.input_bytes
    )


def result_bytes(event: ev.ToolCallFinished) -> int:
    """Count the bytes of a tool's answer that are shown. An erased one has none."""
    part = event.parts[0] if event.parts else None
    return _shown(_stored(part), event.shown) if isinstance(part, ToolResult) else 0


def said_bytes(parts: Iterable[Part]) -> int:
    """Count the bytes of the texts that were said to a run."""
    return sum(len(part.text.encode()) for part in parts if isinstance(part, Text))


def course_of(outlines: Iterable[Outline]) -> Course | None:
    """Read the course of a run from all of its events. None: it did not come to its end, or is none that a user waits for."""
    walk = _Walk()
    for outline in outlines:
        walk.take(outline)
    return Course(walk.session, walk.cost, tuple(walk.steps)) if walk.ended and walk.steps else None


def _stored(part: ToolResult) -> int:
    """Bytes of a result as the envelope gives them (`journal.record.pack`)."""
    said = {name: value for name in ("id", "name", "text", "error", "media") if (value := getattr(part, name))}
    return len(_encode(said))


def _shown(size: int, shown: int) -> int:
    return size if shown < 0 else min(size, shown)


class _Walk:
    """How far a run's journal is read."""

    def __init__(self) -> None:
        self.session = ""
        self.ended = False
        self.cost = 0
        self.steps: list[Progress] = []
        self._counts = [0, 0, 0, 0, 0]
        """Turns, tokens, tool calls, bytes of results and of input."""
        self._started: set[str] = set()
        self._aside = False

    def take(self, outline: Outline) -> None:
        """Read one more event."""
        event = outline.event
        self.cost += 0 if isinstance(event, _SAID_AGAIN) else getattr(event, "cost", 0)
        match event:
            case ev.RunStarted():
                self.session, self._aside = event.session, event.refreshes is not None or event.remembers is not None
                self._counts[4] += _texts(outline.parts[:-1] if event.narrowed else outline.parts)
            case ev.MessageAdded():
                self._counts[4] += _texts(outline.parts)
            case ev.ModelCallStarted() if event.turn > len(self.steps):
                self._step()
            case ev.ModelCallFinished():
                self._counts[0] += 1
                self._counts[1] = event.usage.total_input_tokens if event.usage is not None else self._counts[1]
            case ev.ToolCallStarted() if event.call not in self._started:
                self._started.add(event.call)
                self._counts[2] += 1
            case ev.ToolCallFinished() if outline.parts and outline.parts[0].kind == "tool_result":
                self._counts[3] += _shown(outline.parts[0].size, event.shown)
            case ev.RunFinished():
                self.ended = event.outcome in _ENDS and not self._aside
            case _:
                pass

    def _step(self) -> None:
        turns, tokens, calls, results, said = self._counts
        self.steps.append(Progress(turns, self.cost, tokens, calls, results, said))


def _texts(parts: Iterable[PartRef]) -> int:
    return sum(part.size for part in parts if part.kind == "text")
