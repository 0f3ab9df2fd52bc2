"""What the log says of runs: an operator hears of ends that may be theirs to mend, and of nothing else."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from stanchion import Agent, Model, Runtime
from stanchion.core.bundle import RetryPolicy
from stanchion.core.errors import ModelError
from stanchion.core.message import ModelRequest
from stanchion.testing import ScriptedModel


@pytest.mark.parametrize(("fails", "lines"), [(True, ["failed: model:connect"]), (False, [])])
async def test_a_run_that_fails_is_a_line_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fails: bool, lines: list[str]
) -> None:
    """When no model can be reached the log says so, once a run; a run that is done says nothing."""

    def answer(_: ModelRequest) -> str:
        if fails:
            raise ModelError("nobody is there", code="connect", retryable=True, sent=False)
        return "hello"

    model = Model("anthropic:claude-sonnet-4-6", retries=RetryPolicy(attempts=2, base_s=0.001))
    agent = Agent(name="a", identity="x", model=model)
    caplog.set_level(logging.INFO, logger="stanchion")
    async with await Runtime.open(agent, data=tmp_path / "a.db", clients={"*": ScriptedModel(answer)}) as runtime:
        view = await runtime.wait((await runtime.start("a", "hi")).run, timeout_s=20)
    assert view.outcome == ("failed" if fails else "done")
    assert [record.getMessage().removeprefix(f"run {view.run} ") for record in caplog.records] == lines
