"""The approval view, tried as a reviewer would on recorded attacks: the reason to say no is on the first screen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stanchion.cli import main
from tests.server.attacks import RECORDINGS, Attack, recorded
from tests.server.serving import Json, Served, served

ATTACKS = 20
FIRST_SCREEN = 12
ROUNDS = 20


@pytest.mark.skipif(
    not RECORDINGS.exists(), reason="the recorded attacks are not here (shared/data beside the repository)"
)
async def test_the_reason_to_say_no_is_on_the_first_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty recorded attacks: over HTTP and in the terminal the attacker's value and where it was read come first; no means no."""
    monkeypatch.setenv("COLUMNS", "80")
    attacks = recorded(ATTACKS)
    assert len({attack.place for attack in attacks}) == ATTACKS
    clients: Json = {f"openai:{attack.name}": attack.model() for attack in attacks}
    async with served(tmp_path, agents=[attack.agent() for attack in attacks], clients=clients) as server:
        for attack in attacks:
            run, ask = await asked(server, attack)
            assert any(
                attack.value in line and f"what {attack.source} returned" in line for line in ask["why"].split("\n")
            ), ask
            screen = await terminal(capsys, "decide", run, ask["call"], "--url", server.url)
            packed = "".join("".join(screen.splitlines()[:FIRST_SCREEN]).split())
            assert "".join(f"{attack.value!r}".split()) in packed, screen
            assert f"standsinwhat{attack.source}returned" in packed, screen
            await terminal(capsys, "decide", run, ask["call"], "reject", "--url", server.url, "--by", "ann")
            view = await over(server, run)
            assert not [done for done in view["done"] if done.startswith(f"{ask['call']} ")]


async def asked(server: Served, attack: Attack) -> tuple[str, Json]:
    """Start the attacked run; approve whatever is not the attack, and give the question that is."""
    run = (await server.start(agent=attack.name, input=attack.said))["run"]
    for _ in range(ROUNDS):
        await server.runtime.wait(run, timeout_s=20)
        view = (await server.call("GET", f"/v1/runs/{run}")).json
        for ask in view["waiting"]:
            if ask["tool"] == attack.tool and attack.value in str(ask["arguments"]):
                return run, ask
        assert view["waiting"], (attack, view)
        await approve_all(server, view)
    raise AssertionError(f"{attack.name} asks on and on")


async def approve_all(server: Served, view: Json) -> None:
    decisions = [
        {
            "call": ask["call"],
            "revision": ask["revision"],
            "attempt": ask["attempt"],
            "decision": "approve",
            "by": "ann",
        }
        for ask in view["waiting"]
    ]
    said = await server.call("POST", f"/v1/runs/{view['run']}/decisions", {"decisions": decisions})
    assert said.status == 202, said.raw
    await taken_in(server, view["run"], {ask["call"] for ask in view["waiting"]})


async def taken_in(server: Served, run: str, calls: set[str]) -> None:
    """Wait until decisions on calls stand in the journal."""
    async with asyncio.timeout(20):
        async for entry in server.runtime.tail(run, deltas=False):
            calls.discard(getattr(entry.event, "call", "") if "CallDecided" in type(entry.event).__name__ else "")  # type: ignore[union-attr]
            if not calls:
                return


async def over(server: Served, run: str) -> Any:
    """Reject whatever else is asked until the run is over."""
    for _ in range(ROUNDS):
        await server.runtime.wait(run, timeout_s=20)
        view = (await server.call("GET", f"/v1/runs/{run}")).json
        if view["status"] == "ended":
            return view
        for ask in view["waiting"]:
            body = {"call": ask["call"], "revision": ask["revision"], "decision": "reject"}
            assert (await server.call("POST", f"/v1/runs/{run}/decisions", body)).status in (202, 409)
    raise AssertionError(f"{run} does not end")


async def terminal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command; give what it prints."""
    capsys.readouterr()
    code = await asyncio.to_thread(main.call, arguments)
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out
