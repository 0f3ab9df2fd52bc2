"""What another process erased is told to no model by the next run of a session, whatever the process that drives it keeps in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from stanchion import Agent, Runtime
from stanchion.core.message import Erased
from stanchion.testing import ScriptedModel
from tests.engine.rig import unchanged
from tests.journal.conftest import dsn, fresh_dsn, postgres
from tests.waiting import until

__all__ = ["dsn", "fresh_dsn", "postgres"]

CANARY = "Kingfisher-7749"


async def proved(data: str | Path, user: str, *, drives: bool) -> None:
    """Have a session go on before and after it was erased beside. `drives`: that process drives runs as well."""
    model, agent = ScriptedModel(["Hello."] * 3), Agent(name="desk", model="anthropic:claude-sonnet-4-6")
    beside_agents = [agent] if drives else []
    async with (
        await Runtime.open(agent, data=data, clients={"*": model}) as runtime,
        await Runtime.open(*beside_agents, data=data, clients={"*": model}, drive=drives) as beside,
    ):

        async def say(text: str) -> str:
            started = await runtime.start("desk", text, session="s1", user=user)
            await runtime.wait(started.run, timeout_s=30)
            await until(lambda: not runtime.active)  # an end is noted just after it can be seen
            return str(model.requests[-1].messages)

        await say(f"I am {CANARY}")
        assert CANARY in await say("And now?")
        assert await beside.erase(user or "s1")
        assert CANARY not in await say("And now?")
        assert isinstance(model.requests[-1].messages[0].parts[0], Erased)
        await unchanged(runtime)


@pytest.mark.parametrize("user", ["ann", ""])
async def test_beside_a_data_file_s_one_driver(tmp_path: Path, user: str) -> None:
    """By a process that takes requests and drives nothing."""
    await proved(tmp_path / "t.db", user, drives=False)


@pytest.mark.parametrize("user", ["ann", ""])
async def test_by_another_server(dsn: str, user: str) -> None:
    """Both drive runs of one database."""
    await proved(dsn, user, drives=True)
