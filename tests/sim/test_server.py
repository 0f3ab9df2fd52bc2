"""The server as a whole: the same answer to the same request, its speed, its bill, its admin paths, its process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from stanchion.sim import Fault, FaultPlan, Pacing, Reply, Script, SimServer, running_sim, start_sim_process
from stanchion.sim.exchange import WireName
from stanchion.sim.pace import GRID_S, dues
from tests.sim.raw import HEADERS, PATHS, WIRES, body_of, client, post, post_bytes, said


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_request_gets_the_same_bytes(wire: WireName, stream: bool) -> None:
    """A request is answered alike by any sim at any time: ids and times come from the request."""
    tool = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools: dict[WireName, Any] = {
        "anthropic": {"name": "weather", "input_schema": tool},
        "openai_chat": {"type": "function", "function": {"name": "weather", "parameters": tool}},
        "openai_responses": {"type": "function", "name": "weather", "parameters": tool},
    }
    body = body_of(wire, "weather in city=Rome", stream=stream, tools=[tools[wire]])
    got: set[bytes] = set()
    other = b""
    for _ in range(2):
        async with running_sim() as sim:
            got |= {await post_bytes(sim, wire, body), await post_bytes(sim, wire, body)}
            other = await post_bytes(sim, wire, body_of(wire, "weather in city=Oslo", stream=stream))
    assert len(got) == 1
    assert other not in got
    assert (b"Rome" in got.pop()) or stream


async def events_of(sim: SimServer, wire: WireName) -> tuple[list[float], bytes]:
    """Stream a turn: when something came, and what."""
    loop = asyncio.get_running_loop()
    start, times, got = loop.time(), list[float](), b""
    async with client(sim) as session, session.post(PATHS[wire], json=body_of(wire, stream=True)) as response:
        async for data in response.content.iter_any():
            times.append(loop.time() - start)
            got += data
    return times, got


@pytest.mark.parametrize("wire", WIRES)
async def test_token_speed(wire: WireName) -> None:
    """A turn has as many deltas as asked for, and takes the time they should take; never less."""
    script = Script(default=Reply(text="${words:60}"), pacing=Pacing(first_s=0.05, events=30, interval_s=0.01))
    async with running_sim(script) as sim:
        times, got = await events_of(sim, wire)
    delta = {"anthropic": b"text_delta", "openai_chat": b'"content":"', "openai_responses": b"output_text.delta\n"}
    empty = b'"content":""' if wire == "openai_chat" else b"\0"
    assert got.count(delta[wire]) - got.count(empty) == 30
    assert times[0] >= 0.05
    assert times[-1] - times[0] >= 29 * 0.01 - GRID_S
    assert len(times) > 5


async def test_jitter_is_seeded() -> None:
    """Jitter changes intervals, the same way for the same request."""
    plain = dues(0.0, 50, Pacing(interval_s=0.02), "a")
    some = dues(0.0, 50, Pacing(interval_s=0.02, jitter=0.5), "a")
    assert some == dues(0.0, 50, Pacing(interval_s=0.02, jitter=0.5), "a")
    assert some != plain
    assert some != dues(0.0, 50, Pacing(interval_s=0.02, jitter=0.5), "b")
    assert some == sorted(some)


async def test_many_streams_at_once() -> None:
    """Two hundred paced streams on all wires all arrive whole, and the bill is the sum of them."""
    script = Script(default=Reply(text="${words:40}"), pacing=Pacing(events=20, interval_s=0.005))
    async with running_sim(script) as sim, client(sim) as session:

        async def one(i: int) -> bytes:
            wire = WIRES[i % 3]
            async with session.post(PATHS[wire], json=body_of(wire, f"{i:04}", stream=True)) as response:
                return await response.read()

        got = await asyncio.gather(*(one(i) for i in range(200)))
        assert all(b"message_stop" in g or b"[DONE]" in g or b"response.completed" in g for g in got)
        await sim.bill.drained()
        total = sim.bill.view().total
    assert (total.requests, total.incomplete, total.input_tokens) == (200, 0, 200)


async def test_a_client_that_leaves_is_billed_for_what_came() -> None:
    """A client that goes in mid-stream ends its stream; the bill holds the output until then, and no more."""
    script = Script(default=Reply(text="x" * 4000), pacing=Pacing(events=1000, interval_s=0.005))
    async with running_sim(script) as sim, client(sim) as session:
        async with session.post(PATHS["anthropic"], json=body_of("anthropic", stream=True)) as response:
            await response.content.readany()
            await response.content.readany()
        async with asyncio.timeout(5):
            await sim.bill.drained()
        total = sim.bill.view().total
    assert (total.requests, total.incomplete) == (1, 1)
    assert 0 < total.output_tokens < 500


@pytest.mark.parametrize("wire", WIRES)
async def test_usage_equals_the_bill(wire: WireName) -> None:
    """What responses report adds up to the bill, by key, conversation and model."""
    names: dict[WireName, tuple[str, str]] = {
        "anthropic": ("input_tokens", "output_tokens"),
        "openai_chat": ("prompt_tokens", "completion_tokens"),
        "openai_responses": ("input_tokens", "output_tokens"),
    }
    counted: dict[tuple[str, str], list[int]] = {}
    async with running_sim() as sim:
        for i in range(6):
            key, conversation = f"sim-k{i % 2}", f"c{i % 3}"
            headers = {"x-api-key": key, "x-sim-conversation": conversation}
            _, body = await post(sim, wire, body_of(wire, "hi " * i + "."), **headers)
            at = counted.setdefault((key, conversation), [0, 0])
            for side, name in enumerate(names[wire]):
                at[side] += body["usage"][name]
        lines = sim.bill.view().lines
    assert {(x.key, x.conversation): [x.input_tokens, x.output_tokens] for x in lines} == counted


async def test_count_tokens(sim: SimServer) -> None:
    """Counting a request says what it will be billed."""
    body = body_of("anthropic", "a longer question than the others", system="policy")
    _, answer = await post(sim, "anthropic", body)
    counted = {k: v for k, v in body.items() if k not in ("max_tokens", "stream")}
    async with client(sim) as session, session.post("/v1/messages/count_tokens", json=counted) as response:
        assert await response.json() == {"input_tokens": answer["usage"]["input_tokens"]}


async def test_admin_paths(sim: SimServer) -> None:
    """Script, faults, pacing and conversations are set at run time, and a reset takes them back."""
    async with client(sim) as session:
        async with session.put("/sim/script", json={"default": {"text": "scripted"}}) as response:
            assert response.status == 200
        async with session.put("/sim/pacing", json={"first_s": 0.01}) as response:
            assert response.status == 200
        async with session.put("/sim/conversations/a/b", json=[{"role": "assistant", "content": "x"}]) as response:
            assert (await response.json())["model"] == "sim/a/b"
        _, body = await post(sim, "openai_chat", body_of("openai_chat"))
        assert said("openai_chat", body) == "scripted"
        async with session.put("/sim/faults", json=[{"kind": "server_error", "times": 1}]) as response:
            assert await response.json() == {"faults": 1}
        statuses = [(await post(sim, "openai_chat", body_of("openai_chat")))[0] for _ in range(2)]
        assert statuses == [500, 200]
        async with session.get("/v1/models") as response:
            assert "sim/a/b" in [m["id"] for m in (await response.json())["data"]]
        async with session.post("/sim/reset") as response:
            assert response.status == 200
        async with session.get("/health") as response:
            assert await response.json() == {"status": "ok", "simulated": True, "conversations": 0}
            assert response.headers["x-simulated"] == "true"
        async with session.get("/bill") as response:
            assert (await response.json())["total"]["requests"] == 0
        _, body = await post(sim, "openai_chat", body_of("openai_chat"))
        assert "[simulated]" in said("openai_chat", body)


@pytest.mark.parametrize("path", ["/sim/script", "/sim/faults", "/sim/pacing"])
@pytest.mark.parametrize("body", ["{", '[{"kind": "explode"}]', '{"nonsense": 1}'])
async def test_admin_paths_refuse_nonsense(sim: SimServer, path: str, body: str) -> None:
    """A bad script, fault or pacing is a 400 with a reason, and changes nothing."""
    async with client(sim) as session, session.put(path, data=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["message"]
    status, _ = await post(sim, "openai_chat", body_of("openai_chat"))
    assert status == 200


async def test_a_process_of_its_own() -> None:
    """The process says where it listens, plays the script it was given, and ends on SIGTERM in mid-stream."""
    script = Script(default=Reply(text="${words:99}"))
    process = await start_sim_process(script, pacing=Pacing(events=50, interval_s=1.0))
    try:
        async with (
            client(process) as session,  # pyright: ignore[reportArgumentType] - it has the address, which is all
            session.post(PATHS["openai_chat"], json=body_of("openai_chat", stream=True)) as response,
        ):
            assert response.headers["x-simulated"] == "true"
            assert b"this" in await response.content.readany()
            async with asyncio.timeout(10):
                await process.stop()
    finally:
        await process.stop()
    assert process.process.returncode == 0


def test_the_command_line_names_bad_input(tmp_path: Any) -> None:
    """A missing or bad script and an unknown fault end with code 2 and one line."""
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    for arguments in (["--script", str(tmp_path / "none.json")], ["--script", str(bad)], ["--fault", "explode"]):
        done = subprocess.run(
            [sys.executable, "-m", "stanchion.sim", *arguments], capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 2
        assert done.stderr.startswith("stanchion sim: ")
        assert "Traceback" not in done.stderr


async def test_a_scripted_fault_and_its_recovery() -> None:
    """A rule's own fault strikes as often as it says, and then the rule's reply comes."""
    plan = FaultPlan(Fault.OVERLOADED, times=1)
    async with running_sim(Script(default=Reply(text="fine", fault=plan))) as sim:
        first, _ = await post(sim, "anthropic", body_of("anthropic"))
        second, body = await post(sim, "anthropic", body_of("anthropic"))
    assert (first, second, said("anthropic", body)) == (529, 200, "fine")
    assert msgspec.json.encode(sim.bill.view().total.faults) == b'{"overloaded":1}'
    assert HEADERS["x-api-key"] == sim.bill.view().lines[0].key
