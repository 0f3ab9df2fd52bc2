"""The simulated model: plays plans that follow from the request alone, and fails in every way a provider can."""

from __future__ import annotations

import asyncio
import re
from random import Random
from typing import Any

import msgspec

from stanchion.core.bundle import Timeouts
from stanchion.core.errors import ModelError
from stanchion.core.message import MODEL, Delta, ModelRequest, ModelResponse, Part, Text, ToolCall, Usage
from stanchion.model.client import OnDeltas
from tests.simulation.audit import Audit
from tests.simulation.faults import Faults

_FAILURES: tuple[tuple[Any, bool, int], ...] = (
    ("connect", True, 0),
    ("timeout_first_byte", True, 0),
    ("timeout_idle", True, 0),
    ("cut", True, 0),
    ("early_end", True, 0),
    ("garbled", True, 0),
    ("rate_limited", True, 429),
    ("overloaded", True, 529),
    ("server_error", True, 500),
    ("bad_request", False, 400),
    ("content_filter", False, 200),
)
_BAD_CALLS = (("book", '{"text": "x'), ("fly", '{"to": "moon"}'), ("shout", '{"text": 7}'), ("look", "[]"))
_EFFECTS = ("note", "book", "mail", "pay", "shout", "wipe")


def reply(plan: str, turn: int) -> tuple[Part, ...]:
    """Say what the model says in a turn of a plan: always the same."""
    rng = Random(f"{plan} {turn}")
    if turn >= rng.randint(1, 4) or turn > 6:
        return (Text("" if rng.random() < 0.03 else f"That was plan {plan}.", MODEL),)
    calls: list[Part] = [Text(f"Step {turn}.", MODEL)] if rng.random() < 0.5 else []
    for index in range(rng.choice((1, 1, 1, 2, 3))):
        if rng.random() < 0.06:
            name, arguments = rng.choice(_BAD_CALLS)
        else:
            name = "look" if rng.random() < 0.3 else rng.choice(_EFFECTS)
            name = "hand_over" if rng.random() < 0.03 else name
            text = "the same" if rng.random() < 0.1 else f"{plan}.{turn}.{index}"
            given: dict[str, Any] = {"text": text} | ({"loud": rng.randrange(10)} if name == "shout" else {})
            arguments = msgspec.json.encode(given).decode()
        calls.append(ToolCall(f"call_{index}", name, arguments, MODEL))
    return tuple(calls)


def plan_of(request: ModelRequest) -> tuple[str, int]:
    """Find the plan that the user asked for last, and how often the model has spoken since."""
    turn = 0
    for message in reversed(request.messages):
        turn += message.role == "assistant"
        for part in reversed(message.parts):
            if isinstance(part, Text) and part.text.startswith("plan:"):
                return part.text[5:], turn
    return _plan_in_head(request, turn)


def _plan_in_head(request: ModelRequest, since: int) -> tuple[str, int]:
    """Find the plan in what stands for the beginning of a conversation, and count the turns that are left out with it."""
    said = "\n".join(part.text for part in request.messages[0].parts if isinstance(part, Text))
    left_out, plans = _LEFT_OUT.search(said), _PLAN.findall(said)
    if left_out is None or not plans:
        raise AssertionError("a request without a plan")
    plan, turn = plans[-1]
    return plan, int(left_out[1]) - int(turn) + 1 + since


_LEFT_OUT = re.compile(r"turns 1 to (\d+) are left out")
_PLAN = re.compile(r"^- plan:(\S+) \(turn (\d+)\)$", re.MULTILINE)


WINDOW_S = 20.0
"""Of the provider's limit, where there is one."""


class Thinker:
    """A model client of one machine."""

    def __init__(self, rng: Random, faults: Faults, audit: Audit, fail: Any) -> None:
        self._rng, self._faults, self._audit, self._fail = rng, faults, audit, fail

    def encode(self, request: ModelRequest) -> bytes:
        return msgspec.json.encode(request)

    async def aclose(self) -> None: ...

    async def call(self, request: ModelRequest, *, timeouts: Timeouts, on_deltas: OnDeltas | None) -> ModelResponse:
        """Make a call, within its time."""
        said = self._said(request)
        arrived_s = self._count()
        try:
            async with asyncio.timeout(timeouts.total_s):
                return await self._call(request, said, on_deltas)
        except ModelError as error:
            if not error.sent:  # it was never there
                self._audit.model_calls.remove(arrived_s)
            raise
        except TimeoutError:
            raise ModelError("too slow", code="timeout_total", retryable=True) from None

    def _count(self) -> float:
        """Count a request; no window holds more than the limit that the machines keep to."""
        now_s, rpm = asyncio.get_running_loop().time(), self._faults.plan.rpm
        self._audit.model_calls.append(now_s)
        within = sum(at_s > now_s - WINDOW_S for at_s in self._audit.model_calls)
        if rpm and within > rpm:
            self._fail("quota", f"{within} model calls within {WINDOW_S:g} s, and {rpm} are allowed")
        return now_s

    async def _call(self, request: ModelRequest, parts: tuple[Part, ...], on_deltas: OnDeltas | None) -> ModelResponse:
        rng, faults = self._rng, self._faults
        bad = faults.strikes(faults.plan.model_fault)
        await asyncio.sleep(0.2 + rng.random() * 2.0)
        fate = rng.choice(("fail", "fail", "fail", "hang", "no_usage", "dear", "length")) if bad else ""
        if fate == "hang":
            await asyncio.sleep(10_000.0)
        if fate == "fail" and rng.random() < 0.5:
            raise self._failure(())
        said = await self._stream(parts, on_deltas, cut=fate == "fail")
        if fate == "fail":
            raise self._failure(said)
        calls = any(isinstance(part, ToolCall) for part in parts)
        size = sum(len(str(message.parts)) for message in request.messages) // 8 + 300
        usage = None if fate == "no_usage" else Usage(size * (60 if fate == "dear" else 1), output_tokens=40)
        finish: Any = "length" if fate == "length" else ("tool_calls" if calls else "stop")
        return ModelResponse(parts, finish, usage, model=request.model)

    async def _stream(self, parts: tuple[Part, ...], on_deltas: OnDeltas | None, *, cut: bool) -> tuple[Part, ...]:
        """Say parts piece by piece; when it is cut, only half of them."""
        said: list[Part] = []
        for index, part in enumerate(parts):
            if isinstance(part, Text):
                half = len(part.text) // 2
                for piece in (part.text[:half], part.text[half:]):
                    self._emit(on_deltas, Delta("text", index, piece))
                    await asyncio.sleep(0.05)
            elif isinstance(part, ToolCall):
                self._emit(on_deltas, Delta("tool_call", index, part.arguments, part.name))
            if cut:
                break
            said.append(part)
        return tuple(said)

    def _emit(self, on_deltas: OnDeltas | None, delta: Delta) -> None:
        if on_deltas is not None:
            on_deltas([delta])

    def _failure(self, partial: tuple[Part, ...]) -> ModelError:
        code, retryable, status = self._rng.choice(_FAILURES)
        wait_s = self._rng.choice((None, None, 0.0, 2.0, 10.0))
        return ModelError(
            code,
            code=code,
            retryable=retryable,
            status=status,
            retry_after_s=wait_s,
            partial=partial,
            sent=code != "connect",
        )

    def _said(self, request: ModelRequest) -> tuple[Part, ...]:
        """Say what is answered, to a call that may have left."""
        if request.system and request.system[0].text.startswith("You sum up"):
            self._check_summary()
            return (Text("They spoke of plans.", MODEL),)
        plan, turn = plan_of(request)
        self._check(request, plan)
        return reply(plan, turn)

    def _check_summary(self) -> None:
        """A summary must be one that a journal says is under way (I2)."""
        runs = (run.state.compacting for run in self._audit.runs.values())
        if not any(known is not None and known.in_flight for known in runs):
            self._fail("I2", "a summary was asked for that no journal tells of")

    def _check(self, request: ModelRequest, plan: str) -> None:
        """The call must be one that the journal says has left (I2), with just those messages (I8)."""
        run = self._audit.by_plan.get(plan)
        if run is None or not any(prompt == request.messages for prompt in reversed(run.prompts)):
            self._fail("I2", f"a model call of plan {plan} left that no journal tells of")
