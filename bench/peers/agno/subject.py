# pyright: basic, reportMissingImports=false
"""The agent in Agno: checkpoints after each batch of tools in PostgreSQL; its server with the durable queue."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import uvicorn
from agno.agent import Agent, RunContentEvent
from agno.db.postgres import AsyncPostgresDb
from agno.models.anthropic import Claude
from agno.os import AgentOS, QueueConfig
from agno.tools.function import FunctionCall
from line import OnText, Spec, Subject, main
from sqlalchemy.ext.asyncio import create_async_engine
from tools import IDENTITY, MAX_OUTPUT_TOKENS, MODEL, look_up, pay_back, write_note

QUEUE = {
    "durable": True,
    "max_attempts": 2,  # 1, the default, fails a crashed run visibly and never runs it again
    "max_concurrency": 100,
    "lock_grace_seconds": 5,  # the default is 60; the smaller, the sooner a dead worker's runs are found
    "stop_timeout_seconds": 4,
    "retry_delay_seconds": 0,  # the default is 30
}


async def lookup(order: str) -> str:
    """Look an order up."""
    return await look_up(order)


async def refund(order: str, fc: FunctionCall) -> str:
    """Pay an order back."""
    return await pay_back(order, f"{order}:{fc.call_id}")


async def note(order: str) -> str:
    """Write a note on an order."""
    return await write_note(order)


class Agno(Subject):
    """A checkpoint after each batch of tools, before the next model call. "queue": its server with the durable queue."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.queued = spec["variant"] == "queue"
        self.again = "by itself" if self.queued else "by hand"
        self.serving: asyncio.Task[Any] | None = None
        self.url = ""
        self.ids: dict[str, str] = {}

    async def open(self) -> None:
        """Make the agent; with the queue, its server."""
        url = self.spec["dsn"].replace("postgresql:", "postgresql+psycopg_async:")
        self.db = AsyncPostgresDb(db_engine=create_async_engine(url, pool_size=20, pool_timeout=300))
        self.agent = Agent(
            id="support",
            name="support",
            model=Claude(id=MODEL, max_tokens=MAX_OUTPUT_TOKENS),
            instructions=IDENTITY,
            tools=[lookup, refund, note],
            db=self.db,
            checkpoint="tool-batch",
            tool_call_limit=self.spec.get("limit_calls"),
            telemetry=False,
        )
        if self.queued:
            self.url = await self.serve()

    async def run(self, name: str, on_text: OnText) -> None:
        """Stream a run in a session of this name; with the queue, hand it in and wait for it."""
        prompt = self.spec["prompt"].format(name)
        if self.queued:
            await self._hand_in(name, prompt)
            return
        await self._stream(self.agent.arun(prompt, session_id=name, run_id=name, stream=True), on_text)

    async def resume(self, name: str, on_text: OnText) -> None:
        """Go on from the last checkpoint."""
        await self._stream(self.agent.acontinue_run(run_id=name, session_id=name, stream=True), on_text)

    async def _stream(self, events: Any, on_text: OnText) -> None:
        async for event in events:
            if isinstance(event, RunContentEvent) and event.content:
                on_text(event.content)
            elif event.event == "RunError":
                raise RuntimeError(event.content)

    async def _hand_in(self, name: str, prompt: str) -> None:
        form = {"message": prompt, "background": "true", "stream": "false", "session_id": name}
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            answer = await client.post("/agents/support/runs", data=form)
            answer.raise_for_status()

    async def state(self, name: str) -> str:
        """Look at the stored runs of the session."""
        session = await self.agent.aget_session(session_id=name)
        status = [str(getattr(run.status, "value", run.status)) for run in (session.runs or [])] if session else []
        return {"COMPLETED": "done", "ERROR": "failed"}.get(status[-1] if status else "", "open")

    async def serve(self) -> str:
        """Serve as AgentOS does."""
        queue = QueueConfig(**QUEUE) if self.queued else None
        system = AgentOS(id="bench", agents=[self.agent], db=self.db, queue=queue, telemetry=False)
        config = uvicorn.Config(system.get_app(), port=0, log_level="error", access_log=False)
        server = uvicorn.Server(config)
        self.serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.02)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


if __name__ == "__main__":
    main(Agno)
