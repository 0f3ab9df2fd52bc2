"""The simulated batch API: one provider for all machines, whose hand-ins arrive untold, and whose batches come back in part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from random import Random
from typing import Any, Literal

import msgspec

from stanchion.core.errors import ModelError
from stanchion.core.message import ModelRequest, ModelResponse, ToolCall, Usage
from stanchion.model.batch import BatchItem, BatchOutcome, State
from tests.simulation.audit import Audit
from tests.simulation.faults import Faults
from tests.simulation.thinker import plan_of, reply

_Kept = tuple[float, list[BatchItem]]
"""When a batch ends, and what it holds."""


class BatchProvider:
    """What the provider knows. It outlives every machine."""

    def __init__(self, rng: Random, faults: Faults, audit: Audit, fail: Any, trace: Any) -> None:
        self.finds = rng.random() < 0.5
        self.rng, self.faults, self.audit = rng, faults, audit
        self.fail, self.trace = fail, trace
        self.batches: dict[str, _Kept] = {}
        self.names: dict[str, str] = {}
        self.handed: dict[str, str] = {}
        """By item: the batch that it came in with."""

    def keep(self, items: Sequence[BatchItem], name: str) -> str:
        """Take a batch in. An item comes once, unless nobody could tell whether it had."""
        batch = f"b{len(self.batches)}"
        now_s = asyncio.get_running_loop().time()
        self.batches[batch] = (now_s + self.rng.choice((1.0, 5.0, 20.0)), list(items))
        self.names[name] = batch
        for item in items:
            if item.id in self.handed:
                self.fail("I2", f"{item.id} was handed in with {self.handed[item.id]} and with {batch}")
            self.handed[item.id] = batch
            self._check(item)
        self.trace("batch", batch, *(item.id for item in items))
        return batch

    def _check(self, item: BatchItem) -> None:
        """The request must be one that its journal says has left, with just those messages (I2, I8)."""
        request = msgspec.json.decode(item.body, type=ModelRequest)
        run = self.audit.by_plan.get(plan_of(request)[0])
        if run is None or not any(prompt == request.messages for prompt in run.prompts):
            self.fail("I2", f"{item.id} was handed in, and no journal tells of it")


class BatchThinker:
    """The batch client of one machine."""

    most_items: int = 3
    most_bytes: int = 1_000_000

    def __init__(self, provider: BatchProvider) -> None:
        self._provider = provider
        self.finds = provider.finds

    def encode(self, request: ModelRequest) -> bytes:
        return msgspec.json.encode(request)

    async def aclose(self) -> None: ...

    async def submit(self, items: Sequence[BatchItem], *, name: str) -> str:
        fate = self._fate(("connect", "limited", "refused", "lost", "untold", "untold"))
        await self._travel()
        match fate:
            case "connect":
                raise ModelError("no connection", code="connect", retryable=True, sent=False)
            case "limited":
                raise ModelError("slow down", code="rate_limited", retryable=True, status=429)
            case "refused":
                raise ModelError("no", code="bad_request", retryable=False, status=400)
            case "lost":
                raise ModelError("cut", code="cut", retryable=True)
            case _:
                batch = self._provider.keep(items, name)
        await self._travel()
        if fate == "untold":
            raise ModelError("cut", code="cut", retryable=True)
        return batch

    async def find(self, name: str) -> str | None:
        await self._travel()
        if self._fate(("cut",)):
            raise ModelError("cut", code="cut", retryable=True)
        return self._provider.names.get(name) if self.finds else None

    async def state(self, batch: str) -> State:
        await self._travel()
        if self._fate(("cut",)):
            raise ModelError("cut", code="cut", retryable=True)
        end_s, _ = self._provider.batches[batch]
        return "ended" if asyncio.get_running_loop().time() >= end_s else "running"

    async def outcomes(self, batch: str) -> AsyncGenerator[BatchOutcome]:
        for item in self._provider.batches[batch][1]:
            await self._travel()
            match self._fate(("cut", "errored", "expired", "missing", "no_usage", "dear")):
                case "cut":
                    raise ModelError("cut", code="cut", retryable=True)
                case "errored":
                    error = ModelError("overloaded", code="overloaded", retryable=True, status=529)
                    yield BatchOutcome(item.id, error=error)
                case "expired":
                    error = ModelError("expired", code="overloaded", retryable=True, sent=False)
                    yield BatchOutcome(item.id, error=error)
                case "missing":
                    continue
                case fate:
                    yield BatchOutcome(item.id, response=_answer(item, fate))

    def _fate(self, fates: tuple[str, ...]) -> Literal[""] | str:
        faults = self._provider.faults
        return self._provider.rng.choice(fates) if faults.strikes(faults.plan.model_fault) else ""

    async def _travel(self) -> None:
        await asyncio.sleep(self._provider.faults.latency() + 0.05)


def _answer(item: BatchItem, fate: str) -> ModelResponse:
    request = msgspec.json.decode(item.body, type=ModelRequest)
    parts = reply(*plan_of(request))
    size = sum(len(str(message.parts)) for message in request.messages) // 8 + 300
    usage = None if fate == "no_usage" else Usage(size * (120 if fate == "dear" else 1), output_tokens=40)
    calls = any(isinstance(part, ToolCall) for part in parts)
    return ModelResponse(parts, "tool_calls" if calls else "stop", usage, model=request.model)
