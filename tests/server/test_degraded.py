"""A run says over HTTP, on the terminal and to webhooks what it had to do without."""

from __future__ import annotations

from pathlib import Path

import pytest

from stanchion.agent import Model
from stanchion.cli.desk import Where
from stanchion.cli.runs import _show  # pyright: ignore[reportPrivateUsage]
from stanchion.cli.show import summary
from stanchion.core import event as ev
from stanchion.core.errors import ModelError
from stanchion.core.message import ModelRequest
from stanchion.core.money import price_usd
from stanchion.engine.announce import _said  # pyright: ignore[reportPrivateUsage]
from stanchion.testing import ScriptedModel
from tests.server.serving import agent, served, talker

WITHOUT = "The model openai:test-model: failed on its side"


def down(request: ModelRequest) -> str:
    raise ModelError("broken", code="server_error", retryable=False)


async def test_what_a_run_was_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As sentences in its view, on the command line, and as codes in its last event."""
    other = Model("groq:other", price=price_usd(input="1", output="1"))
    clients = {"openai": ScriptedModel(down), "groq": talker()}
    async with served(tmp_path, agents=[agent(fallbacks=[other])], clients=clients) as server:
        started = await server.start(mode="wait")
        view = (await server.call("GET", f"/v1/runs/{started['run']}")).json
        assert (view["outcome"], view["text"], view["degraded"]) == ("done", "It was shipped.", [WITHOUT])
        page = await server.runtime.store.read("default", started["run"])
        end = page[-1].event
        assert isinstance(end, ev.RunFinished)
        assert end.degraded == ("model:openai:test-model:server_error",)
        said = _said(end)
        assert said is not None
        assert said[1]["degraded"] == ["model:openai:test-model:server_error"]
    assert WITHOUT in summary(view)
    _show(view, Where("", "", "", ""))
    assert f"without   {WITHOUT}" in capsys.readouterr().out
