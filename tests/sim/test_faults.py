"""Every fault is what its name says, on every wire, streamed and whole."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from yarl import URL

from stanchion.core.errors import InputError
from stanchion.sim import Fault, FaultPlan, Pacing, Reply, ReplyCall, Script, running_sim, start_sim_process
from stanchion.sim.exchange import WireName
from stanchion.sim.faults import FaultLog, Strike, parse_plan
from tests.sim.raw import PATHS, WIRES, body_of, client, post, post_bytes, said

ENDINGS: dict[WireName, bytes] = {
    "anthropic": b"message_stop",
    "openai_chat": b"[DONE]",
    "openai_responses": b"response.completed",
}
EVERY_WIRE = pytest.mark.parametrize("wire", WIRES)


@EVERY_WIRE
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [Fault.CUT, Fault.CUT_CLOSE])
async def test_cut(wire: WireName, kind: Fault, stream: bool) -> None:
    """The connection breaks in the middle: the client has a part, and then an error."""
    async with running_sim(faults=[FaultPlan(kind)]) as sim, client(sim) as session:
        async with session.post(PATHS[wire], json=body_of(wire, stream=stream)) as response:
            assert response.status == 200
            got = await response.content.readany()
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        assert got
        assert ENDINGS[wire] not in got
        bill = sim.bill.view().total
        assert (bill.requests, bill.incomplete) == (1, 1)
        assert bill.input_tokens > 0
        assert bill.output_tokens > 0


@EVERY_WIRE
@pytest.mark.parametrize("kind", [Fault.EARLY_END, Fault.GARBAGE, Fault.ERROR_EVENT])
async def test_ends_without_its_finish(wire: WireName, kind: Fault) -> None:
    """The stream ends correctly for HTTP, and holds no finish event."""
    async with running_sim(faults=[FaultPlan(kind)]) as sim:
        got = await post_bytes(sim, wire, body_of(wire, stream=True))
        assert ENDINGS[wire] not in got
        assert b"delta" in got
        assert (b"\xff\xfe\x00" in got) == (kind is Fault.GARBAGE)
        assert (b"server_error" in got or b"overloaded_error" in got) == (kind is Fault.ERROR_EVENT)
        total = sim.bill.view().total
        async with running_sim() as sound:
            await post_bytes(sound, wire, body_of(wire, stream=True))
            whole = sound.bill.view().total
        assert total.input_tokens == whole.input_tokens
        assert 0 < total.output_tokens < whole.output_tokens


@EVERY_WIRE
@pytest.mark.parametrize("kind", [Fault.EARLY_END, Fault.GARBAGE])
async def test_broken_whole_body_is_no_json(wire: WireName, kind: Fault) -> None:
    """Without streaming the same faults leave a body that is no JSON."""
    async with running_sim(faults=[FaultPlan(kind)]) as sim:
        got = await post_bytes(sim, wire, body_of(wire))
        with pytest.raises(ValueError, match=r"."):
            json.loads(got)


@EVERY_WIRE
async def test_stalls(wire: WireName) -> None:
    """A stall holds the answer back, before its first byte or in its middle, until its time is over."""
    for kind in (Fault.STALL_FIRST_BYTE, Fault.STALL_MID_STREAM):
        async with running_sim(faults=[FaultPlan(kind, stall_s=0.1)]) as sim, client(sim) as session:
            start = asyncio.get_running_loop().time()
            with pytest.raises(aiohttp.ClientError):
                async with session.post(PATHS[wire], json=body_of(wire, stream=True)) as response:
                    await response.read()
            assert asyncio.get_running_loop().time() - start >= 0.1
            assert sim.bill.view().total.incomplete == 1


async def test_a_client_that_leaves_a_stall_is_billed() -> None:
    """A client that gives up is billed for what was generated, at once."""
    async with running_sim(faults=[FaultPlan(Fault.STALL_MID_STREAM)]) as sim, client(sim) as session:
        async with session.post(PATHS["anthropic"], json=body_of("anthropic", stream=True)) as response:
            await response.content.readany()
        async with asyncio.timeout(5):
            await sim.bill.drained()
        total = sim.bill.view()
        assert total.in_flight == 0
        assert total.total.output_tokens > 0


@EVERY_WIRE
async def test_slow_first_byte_is_whole(wire: WireName) -> None:
    """A slow answer comes whole."""
    async with running_sim(faults=[FaultPlan(Fault.SLOW_FIRST_BYTE, stall_s=0.05)]) as sim:
        assert ENDINGS[wire] in await post_bytes(sim, wire, body_of(wire, stream=True))
        assert sim.bill.view().total.incomplete == 0


@EVERY_WIRE
@pytest.mark.parametrize("kind", [Fault.GATEWAY_TIMEOUT, Fault.WRONG_CONTENT_TYPE])
async def test_gateway_pages(wire: WireName, kind: Fault) -> None:
    """A proxy's page is HTML, and nothing is billed."""
    async with running_sim(faults=[FaultPlan(kind)]) as sim, client(sim) as session:
        async with session.post(PATHS[wire], json=body_of(wire, stream=True)) as response:
            assert response.status == (504 if kind is Fault.GATEWAY_TIMEOUT else 200)
            assert response.content_type == "text/html"
            assert b"Simulated gateway page" in await response.read()
        total = sim.bill.view().total
        assert (total.requests, total.refused, total.input_tokens) == (0, 1, 0)


@EVERY_WIRE
@pytest.mark.parametrize("stream", [False, True])
async def test_empty_answer(wire: WireName, stream: bool) -> None:
    """An empty answer is complete and says nothing."""
    async with running_sim(faults=[FaultPlan(Fault.EMPTY_ANSWER)]) as sim:
        if stream:
            got = await post_bytes(sim, wire, body_of(wire, stream=True))
            assert ENDINGS[wire] in got
            assert b"[simulated]" not in got
        else:
            _, body = await post(sim, wire, body_of(wire))
            assert said(wire, body) == ""
        total = sim.bill.view().total
        assert total.input_tokens > 0
        assert (total.output_tokens, total.incomplete) == (0, 0)


async def test_malformed_arguments() -> None:
    """Tool arguments are text that is no JSON, on the wires where arguments are text."""
    script = Script(default=Reply(calls=(ReplyCall(name="f", arguments={"a": 1}),)))
    async with running_sim(script, faults=[FaultPlan(Fault.MALFORMED_ARGUMENTS)]) as sim:
        _, chat = await post(sim, "openai_chat", body_of("openai_chat"))
        _, response = await post(sim, "openai_responses", body_of("openai_responses"))
        _, claude = await post(sim, "anthropic", body_of("anthropic"))
    for arguments in (
        chat["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"],
        response["output"][0]["arguments"],
        claude["content"][0]["input"]["malformed"],
    ):
        with pytest.raises(ValueError, match=r"."):
            json.loads(arguments)


@EVERY_WIRE
async def test_unknown_events_change_nothing(wire: WireName) -> None:
    """Unknown events come along, and without them the stream is the sound one."""
    async with running_sim(faults=[FaultPlan(Fault.UNKNOWN_EVENTS, times=1)]) as sim:
        odd = await post_bytes(sim, wire, body_of(wire, stream=True))
        sound = await post_bytes(sim, wire, body_of(wire, stream=True))
    assert b"sim_future" in odd
    strange = (b"sim_future", b": simulated comment")
    assert [e for e in odd.split(b"\n\n") if not any(s in e for s in strange)] == sound.split(b"\n\n")


async def test_times_counts_a_conversation() -> None:
    """The first N requests of each conversation fail; then it recovers."""
    plan = FaultPlan(Fault.SERVER_ERROR, times=2)
    async with running_sim(faults=[plan]) as sim:
        for name in ("a", "b"):
            statuses = [
                (await post(sim, "openai_chat", body_of("openai_chat"), **{"x-sim-conversation": name}))[0]
                for _ in range(4)
            ]
            assert statuses == [500, 500, 200, 200]


@EVERY_WIRE
async def test_fault_by_header_and_by_model(wire: WireName) -> None:
    """A header or the model's name asks for a fault; the model is answered and billed without it."""
    async with running_sim() as sim:
        status, _ = await post(sim, wire, body_of(wire), **{"x-sim-fault": "overloaded;times=1"})
        assert status == 529
        body = {**body_of(wire), "model": "gpt!unavailable;times=1"}
        assert [(await post(sim, wire, body))[0] for _ in range(2)] == [503, 200]
        status, _ = await post(sim, wire, body)
        assert {line.model for line in sim.bill.view().lines} == {"m", "gpt"}


async def test_unknown_fault_is_named() -> None:
    """A fault that is not known is a 400 that lists the faults."""
    async with running_sim() as sim:
        status, body = await post(sim, "openai_chat", body_of("openai_chat"), **{"x-sim-fault": "explode"})
    assert status == 400
    assert "rate_limited" in body["error"]["message"]


async def test_retry_after_is_sent() -> None:
    """429 carries Retry-After."""
    plan = FaultPlan(Fault.RATE_LIMITED, retry_after_s=7)
    async with (
        running_sim(faults=[plan]) as sim,
        client(sim) as session,
        session.post(PATHS["anthropic"], json=body_of("anthropic")) as response,
    ):
        assert (response.status, response.headers["retry-after"]) == (429, "7")
        assert (await response.json())["error"]["type"] == "rate_limit_error"


def test_probability_is_seeded() -> None:
    """The same seed meets the same requests with the same faults; about the asked share of them."""
    strikes = [Strike("anthropic", "m", "c", 0, f"{i:024x}") for i in range(2000)]
    plan = FaultPlan(Fault.CUT, probability=0.25, seed=7)
    first, again = FaultLog(), FaultLog()
    drawn = [first.strikes(plan, s) for s in strikes]
    assert drawn == [again.strikes(plan, s) for s in strikes]
    assert 400 < sum(drawn) < 600
    other = FaultPlan(Fault.CUT, probability=0.25, seed=8)
    assert drawn != [first.strikes(other, s) for s in strikes]


def test_plan_picks_its_requests() -> None:
    """A plan strikes only the turn, wire, conversation and model it names, and may count each turn anew."""
    log = FaultLog()
    here = Strike("anthropic", "m", "c", 1, "00")
    assert log.strikes(FaultPlan(Fault.CUT, turn=1, wire="anthropic", conversation="c", model="m"), here)
    for plan in (
        FaultPlan(Fault.CUT, turn=0),
        FaultPlan(Fault.CUT, wire="openai_chat"),
        FaultPlan(Fault.CUT, conversation="d"),
        FaultPlan(Fault.CUT, model="n"),
    ):
        assert not log.strikes(plan, here)
    each = FaultPlan(Fault.CUT, times=1, per_turn=True)
    turns = [Strike("anthropic", "m", "c", turn, "00") for turn in (0, 0, 1, 1)]
    assert [log.strikes(each, s) for s in turns] == [True, False, True, False]


def test_parse_plan() -> None:
    """A plan in a header has typed fields; an unknown field is named."""
    plan = parse_plan("rate_limited; times=2; retry_after_s=0.5; per_turn=true")
    assert plan == FaultPlan(Fault.RATE_LIMITED, times=2, retry_after_s=0.5, per_turn=True)
    with pytest.raises(InputError, match="tims"):
        parse_plan("cut;tims=2")


async def test_paced_cut_bills_what_was_sent() -> None:
    """A cut of a paced stream bills half of its output."""
    script = Script(default=Reply(text="x" * 400), pacing=Pacing(events=20, interval_s=0.005))
    async with running_sim(script, faults=[FaultPlan(Fault.CUT)]) as sim:
        with pytest.raises(aiohttp.ClientError):
            await post_bytes(sim, "openai_chat", body_of("openai_chat", stream=True))
        assert sim.bill.view().total.output_tokens == 50


@pytest.mark.parametrize("own_process", [False, True])
async def test_a_cut_is_a_reset_and_a_close_is_not(own_process: bool) -> None:
    """On the socket itself: a cut is a TCP RST, a close is an end of file without the last chunk; on either loop."""
    async with running_sim() as inside:
        process = await start_sim_process() if own_process else None
        try:
            url = URL((process or inside).base_url)
            assert await raw_turn(url, "cut") == "reset"
            assert await raw_turn(url, "cut_close") == "eof"
            assert await raw_turn(url, "cut_first_byte") == "reset"
            assert await raw_turn(url, "early_end") == "complete"
        finally:
            if process is not None:
                await process.stop()


async def raw_turn(url: URL, fault: str) -> str:
    """Post by hand; say how the connection ended: reset, eof, or complete by HTTP's rules."""
    assert url.host is not None
    assert url.port is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    body = json.dumps(body_of("openai_chat", stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\nx-sim-fault: {fault}\r\n"
    writer.write(f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    got = b""
    try:
        while data := await reader.read(65536):
            got += data
    except ConnectionResetError:
        return "reset"
    finally:
        writer.close()
    return "complete" if got.endswith(b"0\r\n\r\n") else "eof"
