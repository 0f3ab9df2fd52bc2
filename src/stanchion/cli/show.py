"""How a run looks on a terminal: its events as lines, its text as it comes.

`Screen` shows a run that somebody watches; `event_line` says an event in one line for `runs tail`; the rest is what a run
came to. Events are the dicts of their JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from stanchion.cli.desk import Json
from stanchion.cli.output import clean, dim, is_terminal, one_line, size, took, usd
from stanchion.core.dispatch import unwrapped
from stanchion.core.message import MODEL, ToolCall

NOTHING: tuple[Any, ...] = ("", 0, -1, None, [], {})
MONEY = ("cost", "reserved", "needed", "left")
HIDDEN = {"seq", "at_ms", "epoch", "type", "parts", "hash"}


class Call(msgspec.Struct, frozen=True):
    """A tool call the model proposed."""

    name: str
    arguments: str

    def __str__(self) -> str:
        return f"{self.name}({arguments_text(self.arguments)})"


def _call(part: Json) -> Call:
    """Read a proposed call; one that was made by `call_tool` is one of the tool that it names."""
    written = ToolCall("", part.get("name", ""), part.get("arguments", "{}"), MODEL)
    said = unwrapped(written) or written
    return Call(said.name, said.arguments)


def arguments_text(arguments: str | Mapping[str, Any]) -> str:
    """Write arguments as a person would: names and values on one line."""
    try:
        said = msgspec.json.decode(arguments) if isinstance(arguments, str) else arguments
    except msgspec.DecodeError:
        return one_line(str(arguments))
    if not isinstance(said, Mapping):
        return one_line(str(arguments))
    pairs = (f"{name}={msgspec.json.encode(value).decode()}" for name, value in said.items())  # pyright: ignore[reportUnknownVariableType]
    return one_line(", ".join(pairs), 160)


class Calls:
    """The tool calls of a run, by their identity (`seq.index`)."""

    def __init__(self) -> None:
        self._known: dict[str, Call] = {}

    def note(self, event: Json) -> None:
        """Remember what a model's answer proposes, and what a person made of it."""
        parts = event.get("parts", ())
        if event["type"] == "model_call_finished":
            proposed = [part for part in parts if part.get("type") == "tool_call"]
            for index, part in enumerate(proposed):
                call = _call(part)
                self._known[f"{event['seq']}.{index}"] = call
        elif event["type"] == "call_decided" and event["decision"] == "edit" and parts:
            self._known[event["call"]] = Call(self[event["call"]].name, parts[0].get("text", "{}"))

    def __getitem__(self, call: str) -> Call:
        return self._known.get(call, Call(call, "{}"))


class Screen:
    """Shows a run as it happens: the model's text on stdout if that is a terminal, what else happens on stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.seq = 0
        self.live = is_terminal() and not quiet
        self._quiet = quiet
        self._calls = Calls()
        self._shown: dict[tuple[int, int, int], int] = {}
        self._open_line = False
        self._running: dict[str, str] = {}
        self._running_shown = False
        self._withheld = False
        """What the model says is not for those who watch; the answer is, at the end."""

    def delta(self, delta: Json) -> None:
        """Show a piece of text as it comes. A piece that was shown before is left out."""
        if not self.live or delta["kind"] != "text":
            return
        place = (delta["turn"], delta["attempt"], delta["index"])
        shown = self._shown.get(place, 0)
        new = delta["text"][max(shown - delta["offset"], 0) :]
        self._shown[place] = max(shown, delta["offset"] + len(delta["text"]))
        self._write(new)

    def event(self, event: Json) -> None:
        """Show what happened, where a person wants to know."""
        self.seq = event["seq"]
        self._calls.note(event)
        match event["type"]:
            case "model_call_finished" if event.get("held"):
                self._withheld = True
            case "model_call_finished":
                self._withheld = False
                self._rest_of(event)
            case "run_finished" if self._withheld and self.live:
                for part in event.get("parts", ()):
                    self._write(part.get("text", ""))
                self.end_line()
            case "model_call_failed":
                self._failed(event)
            case "tool_call_started":
                self._running[event["call"]] = str(self._calls[event["call"]])
            case "tool_call_finished":
                self._running.pop(event["call"], None)
                self.line(call_line(event, self._calls))
            case "tool_call_failed":
                self.line(attempt_line(event, self._calls))
            case "limit_warned" | "loop_detected" | "budget_refused" | "budget_overrun":
                self.line(event_line(event, self._calls, short=True))
            case "answer_judged" if event["action"] != "take":
                self.line(event_line(event, self._calls, short=True))
            case "bundle_changed" | "run_parked" | "compacted":
                self.line(event_line(event, self._calls, short=True))
            case _:
                pass
        self._show_running()

    def _show_running(self) -> None:
        """On a terminal, show which calls are under way, on a line that the next thing to be shown takes away again."""
        if not (self._running and self.live and sys.stderr.isatty()):
            return
        self.end_line()
        said = one_line(", ".join(self._running.values()), 70)
        sys.stderr.write(dim(f"  {clean(said)} ..") + "\r")
        sys.stderr.flush()
        self._running_shown = True

    def _hide_running(self) -> None:
        if self._running_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._running_shown = False

    def line(self, text: str) -> None:
        """Say something on a line of its own."""
        if not self._quiet:
            self.end_line()
            sys.stderr.write(dim(f"  {clean(text)}") + "\n")
            sys.stderr.flush()

    def end_line(self) -> None:
        """Bring the cursor to the beginning of a line."""
        self._hide_running()
        if self._open_line:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._open_line = False

    def _write(self, text: str) -> None:
        if text:
            self._hide_running()
            sys.stdout.write(clean(text))
            sys.stdout.flush()
            self._open_line = not text.endswith("\n")

    def _rest_of(self, event: Json) -> None:
        """Show what no delta brought: the client came late, or the provider did not stream."""
        if not self.live:
            return
        for index, part in enumerate(event.get("parts", ())):
            if part.get("type") == "text":
                self._write(part.get("text", "")[self._shown.get((event["turn"], event["attempt"], index), 0) :])
        self.end_line()

    def _failed(self, event: Json) -> None:
        void = any(place[:2] == (event["turn"], event["attempt"]) for place in self._shown)
        parts = event.get("parts", ())
        why = one_line(parts[-1].get("text", ""), 200) if parts else ""
        said = f"model call failed, attempt {event['attempt']}: {why or event['code']}"
        self.line(said + ("; the text above is void" if void else ""))


def call_line(event: Json, calls: Calls) -> str:
    """Say a settled tool call: what was asked, how it went, how much came back, how long it took."""
    parts = event.get("parts", ())
    text = parts[-1].get("text", "") if parts else ""
    outcome = event["outcome"]
    why = f": {one_line(text, 120)}" if outcome in ("error", "invalid", "denied", "rejected") and text else ""
    return f"{calls[event['call']]}  {outcome}{why}  {size(len(text))}  {took(event.get('took_ms', 0))}"


def attempt_line(event: Json, calls: Calls) -> str:
    """Say an attempt at a tool call that failed, and what becomes of the call."""
    parts = event.get("parts", ())
    why = one_line(parts[-1].get("text", ""), 120) if parts else event["code"]
    doubt = "; it may have been done" if event.get("in_doubt") else ""
    return f"{calls[event['call']]}  attempt {event['attempt']} failed: {why}{doubt}"


def event_line(event: Json, calls: Calls, *, short: bool = False) -> str:
    """Say an event in one line."""
    fields = {name: value for name, value in event.items() if name not in HIDDEN and value not in NOTHING}
    fields |= {name: usd(fields[name]) for name in MONEY if name in fields}
    if "call" in fields and str(calls[fields["call"]].name) != fields["call"]:
        fields["tool"] = calls[fields["call"]].name
    said = " ".join(
        f"{name}={value if isinstance(value, str | int) else _json(value)}" for name, value in fields.items()
    )
    content = one_line(" ".join(_part(part) for part in event.get("parts", ())), 120)
    line = f"{event['type']}  {said}" + (f"  {content}" if content else "")
    if short:
        return line
    at = datetime.fromtimestamp(event["at_ms"] / 1000, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    return f"{event['seq']:>4}  {at}  {line}"


def _json(value: Any) -> str:
    return one_line(msgspec.json.encode(value).decode(), 120)


def _part(part: Json) -> str:
    match part.get("type"):
        case "tool_call":
            return str(_call(part))
        case "text" | "thinking" | "tool_result":
            return str(part.get("text", ""))
        case kind:
            return f"[{kind}]"


def state_of(view: Json) -> str:
    """Say how a run stands: its outcome and why, or its status."""
    state = view.get("outcome") or view["status"]
    queue: Json = view.get("queue") or {}
    if queue.get("position"):
        soon = f", about {queue['estimated_wait_s']:g} s" if queue.get("estimated_wait_s") else ""
        return f"{state} (number {queue['position']:,} in the queue{soon})"
    return f"{state} ({view['reason']})" if view.get("reason") else state


def summary(view: Json, *, simulated: bool = False) -> str:
    """Say in one line what a run came to and what it cost."""
    usage: Json = view.get("usage") or {}
    pieces = [
        state_of(view),
        counted(usage.get("turns", 0), "turn"),
        counted(usage.get("tool_calls", 0), "tool call"),
        f"{usage.get('input_tokens', 0):,} tokens in, {usage.get('output_tokens', 0):,} out",
        f"${view['usd']}" + (" (simulated, nothing was paid)" if simulated else ""),
        f"run {view['run']}",
        *view.get("degraded", ()),
    ]
    if view.get("forecast"):
        pieces.insert(-1, f"expected {forecast_text(view['forecast'])}")
    return " · ".join(pieces)


def forecast_text(forecast: Json | None) -> str:
    """Say what a run will have cost: the middle, and the range with what it holds."""
    if not forecast:
        return ""
    held = f"{100 * forecast['coverage']:.0f} % within" if forecast["runs"] else "assumed, between"
    by = f" by {forecast['runs']} past runs" if forecast["runs"] else ""
    return f"${forecast['usd']} ({held} ${forecast['low_usd']} and ${forecast['high_usd']}{by})"


def counted(count: int, what: str) -> str:
    """Count something in words."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


NEEDS = {"edit": " --arguments JSON", "record": " --result TEXT", "reject": " --reason TEXT", "fail": " --reason TEXT"}


def how_to_decide(run: str, waiting: Sequence[Json], where: str) -> str:
    """Say which command decides on the first call that waits."""
    from stanchion.cli.serve import program

    stanchion, first = program(), waiting[0]
    words = f"{run} {first['call']}" if len(waiting) > 1 else run
    said = (f"{decision}{NEEDS.get(decision, '')}" for decision in first["decisions"])
    return "\n".join(f"    {stanchion} decide {words} {each}{where}" for each in said)
