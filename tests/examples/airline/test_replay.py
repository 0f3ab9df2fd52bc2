"""The replay through real processes: it agrees with what was recorded, killed or not, and it finds what differs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from examples.airline import replay
from examples.airline.check import Bench
from examples.airline.recordings import customer_messages, read_conversations
from examples.airline.replay_client import Caller, read_stream
from examples.airline.replay_server import Elsewhere, ServerGone, ServerProcess
from examples.airline.store import AirlineDb
from stanchion.sim import start_sim_process

GIVE = ("send_certificate", {"user_id": "ada_moss", "amount": 50})
CANCEL = ("cancel_reservation", {"reservation_id": "AAAAAA"})
LOOK = ("get_reservation_details", {"reservation_id": "AAAAAA"})
TRANSFER = ("transfer_to_human_agents", {"summary": "The customer wants a person."})
Json = dict[str, Any]
Step = str | tuple[str, Json]


async def record(db: AirlineDb, *steps: Step, reward: float = 1.0, **task: Any) -> Json:
    """Record a conversation: texts are the customer's and the assistant's in turn, calls are made on the tools themselves."""
    bench = Bench(db)
    messages: list[Json] = [{"role": "system", "content": "Be of help."}]
    for number, step in enumerate(steps):
        if isinstance(step, str):
            role = "user" if messages[-1]["role"] in ("system", "assistant") else "assistant"
            messages.append({"role": role, "content": step})
            continue
        name, arguments = step
        function = {"name": name, "arguments": json.dumps(arguments)}
        made = {"id": f"call_{number % 2}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [made]})
        answer = await bench.call(name, arguments)
        messages.append({"role": "tool", "tool_call_id": made["id"], "name": name, "content": answer})
    info = {"task": {"actions": [], "outputs": [], **task}}
    return {"task_id": 0, "trial": 0, "reward": reward, "info": info, "traj": messages}


def actions(*calls: tuple[str, Json]) -> list[Json]:
    return [{"name": name, "kwargs": arguments} for name, arguments in calls]


@pytest.fixture
async def recorded(tmp_path: Path, airline_document: Json) -> list[Json]:
    """Three conversations: one with an effect that needs approval, one over three turns with errors, one handed over."""

    def fresh(name: str) -> AirlineDb:
        return AirlineDb.create(tmp_path / name, airline_document)

    sums = [("calculate", {"expression": f"{n} * 2"}) for n in range(3)]
    unknown, wrong = ("get_user_details", {"user_id": "nobody"}), ("send_certificate", {"user_id": "ada_moss"})
    return [
        await record(
            fresh("a.db"), "Compensate me.", LOOK, GIVE, "You have 1,050 dollars.", "Thanks. ###STOP###",
            actions=actions(GIVE), outputs=["1050"],
        ),
        await record(
            fresh("b.db"), "Who am I?", unknown, wrong, unknown, "Nobody.", "Sums, please.", *sums, *sums, "Done.",
            "Now cancel.", CANCEL, CANCEL, "It is cancelled.", "###STOP###", actions=actions(CANCEL, CANCEL),
        ),
        await record(fresh("c.db"), "A person!", LOOK, TRANSFER, reward=0.0, actions=actions(GIVE)),
    ]  # fmt: skip


@pytest.fixture
def files(tmp_path: Path, airline_document: Json, recorded: list[Json]) -> list[str]:
    """The command line's files."""
    return written(tmp_path, airline_document, recorded)


def written(folder: Path, document: Json, rows: list[Json]) -> list[str]:
    (folder / "db.json").write_text(json.dumps(document))
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ["--db", str(folder / "db.json"), "--trajectories", str(folder / "t.jsonl"), "--verbose"]


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, Json, str]:
    code = replay.main(arguments)
    shown = capsys.readouterr()
    return code, json.loads(shown.out or "{}"), shown.err


@pytest.mark.parametrize("wire", ["openai-chat", "openai", "anthropic"])
def test_what_was_recorded_happens_again(wire: str, files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """On every wire: all results, the errors among them, and all rewards."""
    code, figures, errors = run([*files, "--wire", wire], capsys)
    assert code == 0, errors
    assert figures.pop("seconds") > 0
    assert figures == {"conversations": 3, "tool_calls": 15, "tool_results_equal": 15, "rewards_agree": 3}


def test_a_server_that_is_killed_in_every_conversation_changes_nothing(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same figures, and every conversation lived through a kill."""
    code, figures, errors = run([*files, "--kill", "--seed", "3"], capsys)
    assert code == 0, errors
    assert (figures["tool_results_equal"], figures["rewards_agree"]) == (15, 3)
    assert figures["conversations_killed"] == 3
    assert figures["kills"] > 0


def test_two_servers_and_workers_on_one_database_under_kills_change_nothing(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same figures, whichever process is killed, and whichever answers."""
    many = ["--data", "postgresql", "--servers", "2", "--workers", "2"]
    code, figures, errors = run([*files, *many, "--kill", "--seed", "5"], capsys)
    if "no PostgreSQL can be started here" in errors:
        pytest.skip(errors)
    assert code == 0, errors
    assert (figures["tool_results_equal"], figures["rewards_agree"]) == (15, 3)
    assert figures["conversations_killed"] == 3


def test_what_differs_is_found_and_said(
    tmp_path: Path, airline_document: Json, recorded: list[Json], capsys: pytest.CaptureFixture[str]
) -> None:
    """Another result, outputs that were not said, and a database that the reference actions would not leave."""
    first, second, _ = recorded
    first["traj"][3]["content"] = '{"reservation_id": "BBBBBB"}'
    first["info"]["task"]["outputs"] = ["77"]
    second["traj"][-3]["content"] = "done, but otherwise"
    second["info"]["task"]["actions"] = []
    code, figures, errors = run(written(tmp_path, airline_document, [first, second]), capsys)
    assert code == 1
    assert figures["tool_calls"] - figures["tool_results_equal"] == 2
    assert figures["rewards_agree"] == 0
    assert "call 1, get_reservation_details" in errors
    assert 'recorded \'{"reservation_id": "BBBBBB"}\', answered' in errors
    assert "recorded reward 1.0, ours 0.0 (ended: True, database: the same" in errors
    assert "ours 0.0 (ended: True, database: another" in errors


def test_a_recording_that_is_cut_off_is_replayed_as_far_as_it_goes(
    tmp_path: Path, airline_document: Json, recorded: list[Json], capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the recorded assistant falls silent the run fails, and its results still count."""
    cut = recorded[1]
    del cut["traj"][-2:]
    cut["reward"] = 0.0
    code, figures, errors = run(written(tmp_path, airline_document, [cut]), capsys)
    assert code == 0, errors
    assert figures["tool_calls"] == figures["tool_results_equal"] == 11


async def test_a_server_of_ones_own_is_asked(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --url nothing is started; the folder of databases is left empty."""
    folder = tmp_path / "sessions"
    folder.mkdir()
    sim = await start_sim_process()
    server = ServerProcess(tmp_path, replay.server_environment("openai", folder, sim.base_url))
    try:
        await server.start()
        others = ["--url", await server.url(), "--sim-url", sim.base_url, "--databases", str(folder)]
        assert await asyncio.to_thread(replay.main, [*files, *others]) == 0
    finally:
        await server.stop()
        await sim.stop()
    assert json.loads(capsys.readouterr().out)["tool_results_equal"] == 15
    assert list(folder.iterdir()) == []


async def test_a_replay_that_is_stopped_leaves_nothing_behind(files: list[str], tmp_path: Path) -> None:
    """SIGTERM ends the server, the simulated provider and the temporary folder with it."""
    command = [sys.executable, str(Path(replay.__file__)), *files, "--kill"]
    replaying = await asyncio.create_subprocess_exec(
        *command,
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert replaying.stderr is not None
    line = (await replaying.stderr.readline()).decode()
    addresses = [word.rstrip(",\n") for word in line.split() if word.startswith("http")]
    replaying.send_signal(signal.SIGTERM)
    out, errors = await replaying.communicate()
    assert (replaying.returncode, out) == (130, b"")
    assert errors.endswith(b"replay: stopped\n"), errors
    assert len(addresses) == 2
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
    assert not [name for name in os.listdir(tmp_path) if name.startswith("airline-replay-")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"traj": None}, "line 2 is not a recorded conversation"),
        ({"reward": "high"}, "line 2 is not a recorded conversation"),
        ({"info": {}}, "line 2 is not a recorded conversation: no 'task'"),
        ({"traj": [{"role": "assistant", "content": "Hi"}]}, "conversation 2 (task 0 trial 0) does not begin with"),
        ({"traj": [{"role": "user", "content": "Hi"}]}, "conversation 2 (task 0 trial 0) does not begin with"),
        ({"info": {"task": {"actions": actions(("fly", {}))}}}, "calls 'fly', which is no tool of the airline"),
    ],
)
def test_a_bad_recording_is_refused_before_anything_starts(
    changes: Json,
    message: str,
    tmp_path: Path,
    airline_document: Json,
    recorded: list[Json],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, and the place in the file."""
    code, figures, errors = run(written(tmp_path, airline_document, [recorded[0], {**recorded[1], **changes}]), capsys)
    assert (code, figures) == (2, {})
    assert errors.startswith("replay: ")
    assert message in errors


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--db", "none.json"], "cannot read 'none.json'"),
        (["--trajectories", "none.jsonl"], "cannot read 'none.jsonl'"),
        (["--url", "http://127.0.0.1:1"], "needs all three: --url, --sim-url and --databases"),
        (["--url", "http://h", "--sim-url", "http://s", "--databases", "none"], "there is no folder 'none'"),
        (["--url", "http://h", "--sim-url", "http://s", "--databases", ".", "--kill"], "--kill needs a server of its"),
        (["--url", "http://h", "--sim-url", "http://s", "--databases", ".", "--workers", "2"], "leave --url out"),
        (["--servers", "2"], "several processes need a database"),
        (["--data", "mine.db"], "'mine.db' is neither `postgresql` nor the URL of a database"),
    ],
)
def test_a_bad_command_line_is_refused(
    more: list[str], message: str, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, in words."""
    code, _, errors = run([*files, *more], capsys)
    assert code == 2
    assert message in errors


@pytest.mark.parametrize(("option", "value"), [("--parallel", "0"), ("--limit", "-1"), ("--wire", "telex")])
def test_a_bad_option_is_refused(option: str, value: str, files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """By the parser, with the option's name."""
    with pytest.raises(SystemExit) as exited:
        replay.main([*files, f"{option}={value}"])
    assert exited.value.code == 2
    assert option in capsys.readouterr().err


def test_a_database_of_another_shape_is_refused(
    tmp_path: Path, recorded: list[Json], capsys: pytest.CaptureFixture[str]
) -> None:
    """The document must have the airline's tables."""
    code, _, errors = run(written(tmp_path, {"flights": {}}, recorded), capsys)
    assert code == 2
    assert "the database has no object 'users'" in errors


def test_what_nobody_answered_is_not_said_again(tmp_path: Path, recorded: list[Json]) -> None:
    """The stop ends the conversation and is not sent; messages with nothing between them are one."""
    recorded[0]["traj"].insert(1, {"role": "user", "content": "Hello."})
    written(tmp_path, {}, recorded)
    said = [customer_messages(each) for each in read_conversations(tmp_path / "t.jsonl")]
    assert said == [["Hello.\nCompensate me."], ["Who am I?", "Sums, please.", "Now cancel."], ["A person!"]]


async def test_a_server_that_does_not_start_is_explained(tmp_path: Path) -> None:
    """With what it wrote."""
    server = ServerProcess(tmp_path, {"REPLAY_DATABASES": str(tmp_path), "REPLAY_MODEL": ""})
    with pytest.raises(ServerGone, match="REPLAY_MODEL is not set"):
        await server.start()
    await server.stop()


# --- the client, against a stand-in that says what it is told -----------------------------------------------------------------


def sse(*events: Json) -> bytes:
    rows = ({"at_ms": 1, "parts": [], **event} for event in events)
    return b"".join(f"id: {e['seq']}\nevent: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in rows)


START = {"seq": 1, "type": "run_started"}
FINISH = {"type": "run_finished", "outcome": "done", "reason": ""}


@asynccontextmanager
async def stand_in(*streams: bytes, waiting: list[Json] | None = None) -> AsyncIterator[tuple[str, list[Json]]]:
    """A server whose n-th attachment gets the n-th stream; gives its address and what was posted."""
    posted: list[Json] = []
    left = list(streams)

    async def post(request: web.Request) -> web.Response:
        posted.append({**await request.json(), "path": request.path, **dict(request.headers)})
        return web.json_response({"run": "r1"}, status=202)

    async def events(request: web.Request) -> web.Response:
        posted.append({"attached": request.headers["Last-Event-ID"]})
        return web.Response(body=left.pop(0), content_type="text/event-stream")

    async def view(_: web.Request) -> web.Response:
        return web.json_response({"waiting": waiting or []})

    app = web.Application()
    app.router.add_post("/v1/runs", post)
    app.router.add_post("/v1/runs/r1/decisions", post)
    app.router.add_get("/v1/runs/r1", view)
    app.router.add_get("/v1/runs/r1/events", events)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", posted
    finally:
        await runner.cleanup()


async def converse(url: str) -> tuple[str, int]:
    async with aiohttp.ClientSession() as http:
        replayed = await Caller(http, Elsewhere(url), "s1", lambda _: None).converse(["Hello."])
    return replayed.trouble or replayed.outcome, replayed.events


async def test_a_cut_stream_goes_on_behind_its_last_event() -> None:
    """An event that was cut comes again; what waited meanwhile is approved, at the revision shown."""
    begun, rest = sse(START, {"seq": 2, "type": "model_call_started"}), sse({"seq": 2, **FINISH})
    waiting = [{"call": "3.0", "revision": 1, "kind": "approval"}]
    async with stand_in(begun[:-1], rest, waiting=waiting) as (url, posted):
        assert await converse(url) == ("done", 2)
    assert [p["attached"] for p in posted if "attached" in p] == ["0", "1"]
    assert [(p["call"], p["revision"], p["decision"]) for p in posted if "call" in p] == [("3.0", 1, "approve")]
    assert posted[0]["Idempotency-Key"] == "s1/1"


@pytest.mark.parametrize(
    ("events", "trouble"),
    [
        ([START, {"seq": 3, **FINISH}], "event 3 came after 1"),
        ([START, START], "event 1 came after 1"),
        ([START, {"seq": 2, "type": "run_parked", "reason": "dead_letter", "parts": [{"text": "why"}]}], "is parked"),
        (
            [START, {"seq": 2, "type": "tool_call_judged", "action": "ask", "rule": "in_doubt", "call": "3.0"}],
            "call 3.0 is in doubt",
        ),
    ],
)
async def test_what_the_server_may_not_do_is_trouble(events: list[Json], trouble: str) -> None:
    """A gap, a repetition, a parked run, an effect in doubt: the conversation ends and says why."""
    async with stand_in(sse(*events)) as (url, _):
        assert trouble in (await converse(url))[0]


DOUBT = [
    {"seq": 2, "type": "tool_call_judged", "action": "allow", "rule": "tier:write", "call": "3.0", "revision": 0, "tool": "give"},
    {"seq": 3, "type": "tool_call_started", "call": "3.0", "attempt": 1, "key": "k1"},
    {"seq": 4, "type": "tool_call_failed", "call": "3.0", "attempt": 1, "code": "lost", "in_doubt": True},
    {"seq": 5, "type": "tool_call_started", "call": "3.0", "attempt": 2, "key": "k1"},
    {
        "seq": 6, "type": "tool_call_failed", "call": "3.0", "attempt": 2, "code": "tool_failed", "in_doubt": False,
        "parts": [{"text": "Error: no such user"}],
    },
    {"seq": 7, "type": "tool_call_judged", "action": "ask", "rule": "in_doubt", "call": "3.0", "revision": 0, "tool": "give"},
]  # fmt: skip
"""A keyed call that a kill cut, and that the tool refused when it was made again."""


@pytest.mark.parametrize(
    ("applied", "decision"),
    [(True, {"decision": "retry"}), (False, {"decision": "fail", "reason": "Error: no such user"})],
)
async def test_the_operator_settles_a_doubt_by_the_airline_s_books(
    applied: bool, decision: Json, tmp_path: Path, airline_document: Json
) -> None:
    """What they have is asked for again; what they have not, and was refused, failed. On the attempt that was shown."""
    database = AirlineDb.create(tmp_path / "a.db", airline_document)
    if applied:
        database.apply("k1", "give", lambda _: "certificate")
    async with (
        stand_in(sse(START, *DOUBT, {"seq": 8, **FINISH})) as (url, posted),
        aiohttp.ClientSession() as http,
    ):
        caller = Caller(http, Elsewhere(url), "s1", lambda _: None, replay.operator(database))
        replayed = await caller.converse(["Hello."])
    assert (replayed.outcome, replayed.doubts, replayed.tools_cut) == ("done", 1, 1)
    asked = {"call": "3.0", "revision": 0, "attempt": 2, "by": "operator"}
    assert [{k: v for k, v in p.items() if k in asked | decision} for p in posted if "call" in p] == [asked | decision]


async def test_a_stream_is_read_however_it_is_cut() -> None:
    """Comments and half events are left out."""
    whole = b"retry: 1000\n\n:\n\n" + sse(START) + b'event: end\ndata: {"reason": "x"}\n\nevent: half'

    async def cut() -> AsyncIterator[bytes]:
        for at in range(0, len(whole), 7):
            yield whole[at : at + 7]

    assert [name async for name, _ in read_stream(cut())] == ["run_started", "end"]


async def test_the_recorded_conversations_happen_again(shared_data: Path, tmp_path: Path) -> None:
    """The first six of the shared ones (by hand: all of them, killed too, on every wire)."""
    arguments = ["--db", str(shared_data / "tau-airline-db.json.xz"), "--limit", "6"]
    command = [sys.executable, str(Path(replay.__file__)), *arguments]
    replaying = await asyncio.create_subprocess_exec(
        *command, "--trajectories", str(shared_data / "tau-airline-trajectories.jsonl.xz"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    out, errors = await replaying.communicate()
    assert replaying.returncode == 0, errors
    figures = json.loads(out)
    assert figures["tool_results_equal"] == figures["tool_calls"] == 47
    assert figures["rewards_agree"] == 6
