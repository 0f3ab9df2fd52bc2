"""Recorded conversations are played turn by turn, to whoever names them, however often."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from stanchion.sim import SimServer, running_sim
from stanchion.sim.exchange import WireName
from tests.sim.raw import HEADERS, WIRES, body_of, client, post, said

FIRST = {"role": "user", "content": "book it"}
TRAJECTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "policy"},
    FIRST,
    {"role": "assistant", "content": "Which flight?"},
    {"role": "user", "content": "HAT136"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "book", "arguments": '{"n": "HAT136"}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "name": "book", "content": "done"},
    {
        "role": "assistant",
        "content": "Paying.",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "pay", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "name": "pay", "content": "paid"},
    {"role": "assistant", "content": "All done."},
]


async def load(sim: SimServer, name: str = "trip-1", body: Any = None) -> None:
    """Load a conversation over HTTP."""
    async with client(sim) as session, session.put(f"/sim/conversations/{name}", json=body or TRAJECTORY) as response:
        assert response.status == 200, await response.text()
        assert (await response.json())["turns"] == 4


@pytest.mark.parametrize("recorded", [TRAJECTORY, {"traj": TRAJECTORY}, {"messages": TRAJECTORY}])
async def test_chat_plays_the_recording(sim: SimServer, recorded: Any) -> None:
    """Request N gets the recorded assistant message N, with its ids and arguments as recorded."""
    await load(sim, body=recorded)
    for at, message in enumerate(TRAJECTORY):
        if message["role"] != "assistant":
            continue
        for _ in range(2):
            body = {"model": "gpt-4o", "messages": TRAJECTORY[:at] and without_names(TRAJECTORY[:at])}
            _, got = await post(sim, "openai_chat", body, **{"x-sim-conversation": "trip-1"})
            spoken = got["choices"][0]["message"]
            assert (spoken["content"], spoken.get("tool_calls")) == (message["content"], message.get("tool_calls"))


def without_names(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop what a client would not send."""
    return [{k: v for k, v in m.items() if k != "name"} for m in messages]


async def test_anthropic_gets_fresh_ids_for_repeated_ones(sim: SimServer) -> None:
    """A recorded id that came before would be refused when it comes back, so it is replaced."""
    await load(sim)
    use = {"type": "tool_use", "id": "c1", "name": "book", "input": {"n": "HAT136"}}
    messages = [
        FIRST,
        {"role": "assistant", "content": "Which flight?"},
        {"role": "user", "content": "HAT136"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "done"}]},
    ]
    _, third = await post(sim, "anthropic", {**body_of("anthropic"), "model": "sim/trip-1", "messages": messages[:3]})
    assert third["content"] == [use]
    _, got = await post(sim, "anthropic", {**body_of("anthropic"), "model": "sim/trip-1", "messages": messages})
    assert got["content"][0] == {"type": "text", "text": "Paying."}
    assert got["content"][1]["name"] == "pay"
    assert got["content"][1]["id"].startswith("toolu_sim")


WAYS: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("header", {}, {"x-sim-conversation": "trip-1"}),
    ("model", {"model": "sim/trip-1"}, {}),
    ("vendor and model", {"model": "openai/sim/trip-1"}, {}),
    ("key", {}, {"x-api-key": "sim-trip-1"}),
    ("marker", {"text": "hi [sim-conversation: trip-1]"}, {}),
    ("loaded user", {"user": "trip-1"}, {}),
    ("prefixed user", {"user": "sim-trip-1"}, {}),
]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("body", "headers"), [way[1:] for way in WAYS], ids=[way[0] for way in WAYS])
async def test_ways_to_name_a_conversation(
    sim: SimServer, wire: WireName, body: dict[str, Any], headers: dict[str, str]
) -> None:
    """A header, the model, a marker, a body field or the key name the conversation; the bill names it too."""
    await load(sim)
    more = {k: v for k, v in body.items() if k not in ("text", "user")}
    if "user" in body:
        more |= {"metadata": {"user_id": body["user"]}} if wire == "anthropic" else {"safety_identifier": body["user"]}
    request = {**body_of(wire, body.get("text", "book it")), **more}
    keys = {"x-api-key": "plain-key", **headers}
    _, got = await post(sim, wire, request, **keys)
    assert said(wire, got) == "Which flight?"
    assert [line.conversation for line in sim.bill.view().lines] == ["trip-1"]


async def test_an_unknown_conversation_in_the_model_is_not_found(sim: SimServer) -> None:
    """A model that names no loaded conversation is a 404 that says how to load it."""
    status, body = await post(sim, "openai_chat", {**body_of("openai_chat"), "model": "sim/nowhere"})
    assert status == 404
    assert "PUT /sim/conversations/nowhere" in body["error"]["message"]


async def test_past_the_end_of_a_recording(sim: SimServer) -> None:
    """More assistant turns than were recorded is a 400 that counts them."""
    await load(sim)
    messages = [FIRST, *[{"role": "assistant", "content": "x"}, FIRST] * 4]
    status, body = await post(sim, "openai_chat", {"model": "sim/trip-1", "messages": messages})
    assert status == 400
    assert body["error"]["code"] == "sim_recording_exhausted"


async def test_interleaved_responses_items_are_one_turn() -> None:
    """Outputs put right after their calls do not make one response into two turns."""
    two = [{"id": "", "type": "function", "function": {"name": n, "arguments": "{}"}} for n in ("a", "b")]
    recorded = [FIRST, {"role": "assistant", "tool_calls": two}, FIRST, {"role": "assistant", "content": "end"}]
    async with running_sim() as sim, client(sim) as session:
        async with session.put("/sim/conversations/x", json=recorded) as response:
            assert response.status == 200
        request = {"model": "sim/x", "input": [FIRST]}
        _, got = await post(sim, "openai_responses", request)
        items: list[dict[str, Any]] = [FIRST]
        for call in got["output"]:
            items += [call, {"type": "function_call_output", "call_id": call["call_id"], "output": "1"}]
        _, got = await post(sim, "openai_responses", {"model": "sim/x", "input": items})
        assert said("openai_responses", got) == "end"


@pytest.mark.parametrize("body", ["[]", "{}", "3", '[{"role": "user", "content": "x"}]', '[{"rôle": 1}]', "{"])
async def test_what_is_no_conversation(sim: SimServer, body: str) -> None:
    """What cannot be played is refused with a reason."""
    async with client(sim) as session, session.put("/sim/conversations/x", data=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["message"]


async def test_names_on_the_bill_hide_keys(sim: SimServer) -> None:
    """A key that does not begin with sim is billed under a digest."""
    await post(sim, "openai_chat", body_of("openai_chat"), **{"x-api-key": "sk-real-secret"})
    async with client(sim) as session, session.get("/bill", headers=HEADERS) as response:
        bill = await response.json()
    assert bill["simulated"] is True
    assert "sk-real-secret" not in str(bill)
    assert bill["lines"][0]["key"].startswith("key-")


async def test_every_recorded_trajectory_plays(sim: SimServer, shared_data: Path) -> None:
    """Each assistant turn of the shared conversations comes back as recorded, with the history before it taken."""
    wrong: list[str] = []
    with lzma.open(shared_data / "tau-airline-trajectories.jsonl.xz", "rt") as lines:
        trajectories = [json.loads(line)["traj"] for line in lines]
    async with client(sim) as session:
        for i, messages in enumerate(trajectories):
            async with session.put(f"/sim/conversations/t{i}", json=messages) as response:
                assert response.status == 200
            history = without_names(messages)
            for at in (at for at, message in enumerate(messages) if message["role"] == "assistant"):
                request = {"model": f"sim/t{i}", "messages": history[:at]}
                async with session.post("/v1/chat/completions", json=request) as response:
                    got = await response.json()
                spoken = got.get("choices", [{"message": got}])[0]["message"]
                wanted = (messages[at].get("content") or None, messages[at].get("tool_calls"))
                if (spoken.get("content"), spoken.get("tool_calls")) != wanted:
                    wrong.append(f"t{i}[{at}]: {spoken} is not {wanted}")
    assert wrong == []
