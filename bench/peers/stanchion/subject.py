# pyright: reportMissingImports=false
"""The agent in Stanchion: the facade over PostgreSQL; streams by the HTTP server that `stanchion serve` starts."""

from __future__ import annotations

import asyncio
import ctypes
import json
import signal
import sys
from pathlib import Path

from line import OnText, Spec, Subject, main
from tools import IDENTITY, MAX_OUTPUT_TOKENS, MODEL, look_up, pay_back, write_note

from stanchion import Agent, Limits, Model, Runtime, tool
from stanchion.core.bundle import LoopRules
from stanchion.core.event import Entry, ModelCallFinished, ModelCallStarted
from stanchion.core.message import Text


@tool(effect="read")
async def lookup(order: str) -> str:
    """Look an order up."""
    return await look_up(order)


@tool(effect="irreversible", timeout_s=120)
async def refund(order: str, *, key: str) -> str:
    """Pay an order back."""
    return await pay_back(order, key)


@tool(effect="write", timeout_s=120)
async def note(order: str) -> str:
    """Write a note on an order."""
    return await write_note(order)


agent = Agent(
    name="support",
    identity=IDENTITY,
    tools=[lookup, refund, note],
    model=Model(f"anthropic:{MODEL}", max_output_tokens=MAX_OUTPUT_TOKENS, context_tokens=2_000_000),
    limits=Limits(turns=10_000, budget_wait_s=20),
    loop=LoopRules(calls_per_minute=0),  # a run of 1,000 steps in seconds is what is asked for here
)


class Stanchion(Subject):
    """Every intent and outcome is synced before the next step."""

    again = "by itself"

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.runs: dict[str, str] = {}
        self.served: asyncio.subprocess.Process | None = None

    async def open(self) -> None:
        """Open the runtime; it goes on with what it finds."""
        self.runtime = await Runtime.open(agent, data=self.spec["dsn"])
        if usd := self.spec.get("limit_usd"):
            await self.runtime.set_budget("tenant", usd)

    async def run(self, name: str, on_text: OnText) -> None:
        """Start it under its name as the idempotency key, and follow it."""
        started = await self.runtime.start("support", self.spec["prompt"].format(name), idempotency_key=name)
        had = 0
        async for seen in self.runtime.tail(started.run):
            if not isinstance(seen, Entry):
                if seen.kind == "text":
                    on_text(seen.text)
                    had += len(seen.text)
            elif isinstance(seen.event, ModelCallFinished):
                whole = "".join(part.text for part in seen.event.parts if isinstance(part, Text))
                if whole[had:]:  # what was said before anybody looked comes with the finished call
                    on_text(whole[had:])
            elif isinstance(seen.event, ModelCallStarted):
                had = 0
        view = await self.runtime.view(started.run)
        if view.outcome != "done":
            raise RuntimeError(f"{view.outcome}: {view.reason}")

    async def state(self, name: str) -> str:
        """Look at the run's row."""
        view = await self.runtime.view(await self._run_of(name))
        if view.status == "waiting":
            return "waiting"
        return {"": "open", "done": "done"}.get(view.outcome, "failed")

    async def _run_of(self, name: str) -> str:
        if name not in self.runs:
            for row in await self.runtime.runs(limit=1000):
                (first,) = await self.runtime.store.read("default", row.run, limit=1)
                text = next(part.text for part in first.event.parts if isinstance(part, Text))  # type: ignore[union-attr]
                self.runs[text.removeprefix("run=").partition(" ")[0]] = row.run
        return self.runs[name]

    async def serve(self) -> str:
        """Leave the database to `stanchion serve`, which ends with this process; give its address."""
        await self.runtime.aclose(grace_s=1)
        command = Path(sys.executable).with_name("stanchion")
        self.served = await asyncio.create_subprocess_exec(
            command, "serve", __file__, "--port", "0", "--data", self.spec["dsn"], "-o", "json",
            stdout=asyncio.subprocess.PIPE, preexec_fn=_end_with_parent,
        )  # fmt: skip
        assert self.served.stdout is not None
        return json.loads(await self.served.stdout.readline())["url"]

    async def close(self) -> None:
        """Let go of all runs."""
        if self.served is None:
            await self.runtime.aclose(grace_s=1)


def _end_with_parent() -> None:
    """Have Linux kill this process when the one that started it is gone, however it went."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    main(Stanchion)
