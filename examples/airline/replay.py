"""Replay recorded conversations through the running server over HTTP, and say how far it agrees with what was recorded.

    python examples/airline/replay.py --db DATABASE.json --trajectories CONVERSATIONS.jsonl [--kill] [--verbose]
    python examples/airline/replay.py .. --data postgresql --servers 2 --workers 4 --kill

The recorded assistant is the model, played by the simulated provider; the recorded customer is the client, and approves
what waits; the tools are the real ones on a fresh database for each conversation, and never see the recording. It starts
both servers itself and ends them. With --kill the server is killed (SIGKILL) at a random moment in every conversation. With
`--data postgresql` there are several servers and workers on one database, and a kill takes any of them.

What a kill leaves in doubt is put to an operator, who looks at the airline's own books (which idempotency keys were applied) and
at what the run's journal shows, and at nothing else.

It prints one JSON line: conversations, tool_calls, tool_results_equal, rewards_agree, seconds; with --kill also kills,
conversations_killed, how many attempts at model and tool calls were cut off, and how often the operator was asked. Exit code 0: everything agrees; 1:
something differs; 2: bad input.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `examples.airline` is found however this was started

from examples.airline.check import FreshDatabases, Report
from examples.airline.recordings import (
    BadFile,
    Call,
    Conversation,
    customer_messages,
    equal_results,
    expected_reward,
    is_error,
    read_conversations,
    read_database,
)
from examples.airline.replay_client import Answered, Caller, Doubt, Person, Replayed
from examples.airline.replay_server import Address, Deployment, Elsewhere, ServerGone, ServerProcess
from examples.airline.store import AirlineDb, BadDatabase
from examples.airline.tools import TOOLS
from stanchion.sim import Pacing, start_sim_process
from stanchion.testing.postgres import NoPostgres, PostgresServer
from stanchion.toolbox.registry import Registry

WIRES = {
    "openai-chat": "openai-chat:gpt-4o",
    "openai": "openai:gpt-4o",
    "anthropic": "anthropic:claude-sonnet-4-6",
}
KILL_PACING = Pacing(first_s=0.03, interval_s=0.004, events=20)  # so that a kill finds the model in mid-sentence, too
LATEST_KILL_S = 0.1  # how long after its event a kill comes at the latest
TRIES = 6  # a conversation that ended before its kill came is held again
STATUS_EVERY = 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    wire: str = "openai-chat"
    parallel: int = 8
    kill: bool = False
    seed: int = 0
    url: str = ""
    sim_url: str = ""
    databases: str = ""
    data: str = ""
    """Empty: a data file. "postgresql": a server of its own. Else the URL of a database."""
    servers: int = 1
    workers: int = 0


@dataclass(slots=True)
class Stage:
    """What all conversations of a replay share."""

    http: aiohttp.ClientSession
    address: Address
    sim_url: str
    databases: FreshDatabases
    folder: Path
    """Where the server looks for the database of a session."""
    server: Deployment | None = None
    """The processes, where they are ours to kill."""
    killing: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def kill_later(self, after_s: float) -> None:
        """Kill a process in a moment."""
        assert self.server is not None
        server = self.server

        async def kill() -> None:
            await asyncio.sleep(after_s)
            await server.kill()

        task = asyncio.create_task(kill())
        self.killing.add(task)
        task.add_done_callback(self.killing.discard)

    def kills_of(self, replayed: Replayed) -> int:
        """Count the kills that came while a conversation was live, by the times in its journal."""
        kills = self.server.kills if self.server else []
        return sum(replayed.started_ms <= kill < replayed.ended_ms for kill in kills)


@dataclass(slots=True)
class Toll:
    """What the kills did to the conversations that count."""

    conversations_killed: int = 0
    model_calls_cut: int = 0
    tool_calls_cut: int = 0
    doubts_settled: int = 0


def check_conversations(conversations: Sequence[Conversation], path: str) -> None:
    """Refuse what cannot be replayed: recordings of other tools, or without a customer to begin. Raises BadFile.

    A call of a tool that is not ours is well where it answered an error: the recorded assistant made it up.
    """
    known = {spec.name for spec in Registry(TOOLS, {AirlineDb: object()}).specs}
    for number, conversation in enumerate(conversations, 1):
        where = f"{path}: conversation {number} ({conversation.label})"
        if not customer_messages(conversation):
            raise BadFile(f"{where} does not begin with something that the customer says and the assistant answers")
        for call in (*conversation.calls, *conversation.reference):
            if call.name not in known and not is_error(call.result or ""):
                tools = ", ".join(sorted(known))
                raise BadFile(f"{where} calls {call.name!r}, which is no tool of the airline; its tools are {tools}")


async def replay(
    document: object, conversations: Sequence[Conversation], options: Options, tell: Callable[[str], None]
) -> tuple[Report, dict[str, int]]:
    """Replay all conversations. Returns the report and, with kills, their counts. Raises ServerGone and BadDatabase."""
    report, toll = Report(), Toll()
    async with _stage(document, options) as stage:
        tell(f"the server is at {await stage.address.url()}, the simulated provider at {stage.sim_url}")
        waiting = iter(enumerate(conversations, 1))

        async def lane() -> None:
            for number, conversation in waiting:
                name = f"{number}-{'-'.join(conversation.label.split())}"
                replayed, database = await _hold(stage, name, conversation, options)
                toll.conversations_killed += stage.kills_of(replayed) > 0
                toll.model_calls_cut += replayed.models_cut
                toll.tool_calls_cut += replayed.tools_cut
                toll.doubts_settled += replayed.doubts
                await _judge(report, stage, conversation, replayed, database)
                if report.conversations % STATUS_EVERY == 0 or report.conversations == len(conversations):
                    tell(f"{report.conversations} of {len(conversations)} conversations replayed")

        await _together([lane() for _ in range(min(options.parallel, len(conversations)))])
        report.mismatches.sort(key=_place)
        return report, {"kills": len(stage.server.kills), **asdict(toll)} if stage.server else {}


async def _together(lanes: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all to their end; the first error ends all and is raised as it is."""
    tasks = [asyncio.create_task(lane) for lane in lanes]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _place(mismatch: str) -> tuple[int, ...]:
    return tuple(int(word) for word in mismatch.partition(",")[0].partition(":")[0].split() if word.isdigit())


@contextlib.asynccontextmanager
async def _stage(document: object, options: Options) -> AsyncIterator[Stage]:
    """Start what is to run, and end it whatever happens."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="airline-replay-")))
        databases = FreshDatabases(folder, document)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        if options.url:
            where = Path(options.databases)
            yield Stage(http, Elsewhere(options.url), options.sim_url.rstrip("/"), databases, where)
            return
        own = folder / "sessions"
        own.mkdir()
        sim = await start_sim_process(pacing=KILL_PACING if options.kill else None)
        stack.push_async_callback(sim.stop)
        server = _deployment(stack, options, folder, server_environment(options.wire, own, sim.base_url))
        stack.push_async_callback(server.stop)
        await server.start()
        stage = Stage(http, server, sim.base_url, databases, own, server if options.kill else None)
        stack.push_async_callback(_end_kills, stage)
        yield stage


def _deployment(
    stack: contextlib.AsyncExitStack, options: Options, folder: Path, environment: dict[str, str]
) -> Deployment:
    """Make the processes that are to run. Raises ServerGone where there is no PostgreSQL to start."""
    data = options.data
    if data == "postgresql":
        try:
            data = stack.enter_context(PostgresServer(durable=True)).dsn()
        except NoPostgres as error:
            raise ServerGone(f"no PostgreSQL can be started here: {error}") from None
    kind = "api" if options.workers else "serve"
    servers = [
        ServerProcess(folder, environment, kind=kind, data=data, name=f"{kind}-{number}")
        for number in range(options.servers)
    ]
    workers = [
        ServerProcess(folder, environment, kind="worker", data=data, name=f"worker-{number}")
        for number in range(options.workers)
    ]
    return Deployment(servers, workers, seed=options.seed)


async def _end_kills(stage: Stage) -> None:
    tasks = list(stage.killing)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def server_environment(wire: str, databases: Path, sim_url: str) -> dict[str, str]:
    """Give the settings with which a server serves the replay's agent."""
    base_urls = {"ANTHROPIC_BASE_URL": sim_url, "OPENAI_BASE_URL": f"{sim_url}/v1"}
    keys = dict.fromkeys(("ANTHROPIC_API_KEY", "OPENAI_API_KEY"), "sim-key")
    return {**base_urls, **keys, "REPLAY_MODEL": WIRES[wire], "REPLAY_DATABASES": str(databases)}


async def _hold(stage: Stage, name: str, conversation: Conversation, options: Options) -> tuple[Replayed, AirlineDb]:
    """Hold a conversation; with kills, again and with an earlier kill until one came while it was live."""
    for attempt in range(TRIES):
        session = f"{name}-{time.time_ns():x}" if options.url else name if attempt == 0 else f"{name}-again-{attempt}"
        database = stage.databases.take(stage.folder / f"{session}.db")
        await _load(stage, session, conversation)
        moment, after_s = _moment(conversation, f"{options.seed}/{session}", attempt)

        def on_event(count: int, moment: int = moment, after_s: float = after_s) -> None:
            if stage.server is not None and count == moment:
                stage.kill_later(after_s)

        first, *rest = customer_messages(conversation)
        caller = Caller(stage.http, stage.address, session, on_event, operator(database))
        replayed = await caller.converse([f"{first}\n\n[sim-conversation: {session}]", *rest])
        if stage.server is None or replayed.trouble or stage.kills_of(replayed) or attempt == TRIES - 1:
            return replayed, database
        database.path.unlink()
    raise AssertionError("there is at least one attempt")


def operator(database: AirlineDb) -> Person:
    """Play the operator: look whether the airline's books have the call's key, and say what they show.

    What they have is asked for again under its key, which changes nothing and brings what was done. What they have not, and
    the tool refused when it was called again, was not done: the model is told the tool's own words.
    """

    async def settle(doubt: Doubt) -> dict[str, str]:
        if not doubt.refused or await asyncio.to_thread(database.applied, doubt.key):
            return {"decision": "retry"}
        return {"decision": "fail", "reason": doubt.refused}

    return settle


def _moment(conversation: Conversation, seed: str, attempt: int) -> tuple[int, float]:
    """Draw a kill: after which of the conversation's events, and how long after it (seconds)."""
    draw = random.Random(seed)
    assistant = sum(message["role"] == "assistant" for message in conversation.messages)
    events = 2 * len(customer_messages(conversation)) + 2 * assistant + 3 * len(conversation.calls)
    return draw.randint(1, max(events >> attempt, 1)), draw.uniform(0, LATEST_KILL_S) / (1 << attempt)


async def _load(stage: Stage, session: str, conversation: Conversation) -> None:
    """Give the recording to the simulated provider. The first thing the customer says names it there."""
    url = f"{stage.sim_url}/sim/conversations/{session}"
    try:
        async with stage.http.put(url, json=list(conversation.messages)) as response:
            if response.status >= 300:
                raise ServerGone(f"the simulated provider took no recording: {(await response.text())[:300]}")
    except aiohttp.ClientError as error:
        raise ServerGone(f"no simulated provider at {stage.sim_url} ({error})") from None


async def _judge(
    report: Report, stage: Stage, conversation: Conversation, replayed: Replayed, database: AirlineDb
) -> None:
    """Compare results and reward with the recorded ones."""
    ended = replayed.trouble or f"the last run ended as {replayed.outcome} {replayed.reason}".strip()
    if replayed.trouble:
        report.mismatches.append(f"{conversation.label}: {ended}")
    for number, (call, answered) in enumerate(_pairs(conversation.calls, replayed.answers), 1):
        if call.result is None:
            continue  # cut off before the answer came: there is nothing to compare
        report.tool_calls += 1
        if answered is not None and answered.name == call.name and equal_results(call.result, answered.text):
            report.tool_results_equal += 1
            continue
        got = f"answered {answered.text[:300]!r} by {answered.name}" if answered else f"never answered: {ended}"
        where = f"{conversation.label}, call {number}, {call.name}({json.dumps(call.arguments)})"
        report.mismatches.append(f"{where}: recorded {call.result[:300]!r}, {got}")
    same_database = database.fingerprint() == await stage.databases.after(conversation.reference)
    database.path.unlink()
    report.conversations += 1
    reward = expected_reward(conversation, same_database=same_database, said=replayed.told)
    if reward == conversation.reward:
        report.rewards_agree += 1
        return
    same = "the same" if same_database else "another"
    why = f"ended: {conversation.ended}, database: {same} as after the reference actions, {ended}"
    report.mismatches.append(f"{conversation.label}: recorded reward {conversation.reward}, ours {reward} ({why})")


def _pairs(calls: Sequence[Call], answers: Sequence[Answered]) -> Iterator[tuple[Call, Answered | None]]:
    for number, call in enumerate(calls):
        yield call, answers[number] if number < len(answers) else None


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 0 when everything agrees, 1 when something differs or broke, 2 on bad input."""
    given = _parser().parse_args(argv)
    started = time.monotonic()
    try:
        options = _options(given)
        document, conversations = read_database(given.db), read_conversations(given.trajectories)[: given.limit]
        check_conversations(conversations, given.trajectories)
        report, kills = asyncio.run(_until_told(replay(document, conversations, options, _tell)))
    except (BadFile, BadDatabase) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("replay: stopped", file=sys.stderr)
        return 130
    except ServerGone as error:
        print(f"replay: {error}", file=sys.stderr)
        return 1
    if given.verbose:
        for mismatch in report.mismatches:
            print(mismatch, file=sys.stderr)
    print(json.dumps({**json.loads(report.line(time.monotonic() - started)), **kills}))
    return 1 if report.mismatches else 0


def _tell(text: str) -> None:
    print(f"replay: {text}", file=sys.stderr)


async def _until_told(work: Coroutine[Any, Any, T]) -> T:
    """Do the work; SIGTERM ends it as Ctrl-C does, with everything it started."""
    task = asyncio.ensure_future(work)
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not on Windows, not in a thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _options(given: argparse.Namespace) -> Options:
    """Read the options. Raises BadFile for those that do not go together."""
    others = (given.url, given.sim_url, given.databases)
    if any(others) and not all(others):
        raise BadFile("a server of yours needs all three: --url, --sim-url and --databases (its REPLAY_DATABASES)")
    if given.url and given.kill:
        raise BadFile("--kill needs a server of its own; leave --url out")
    if given.url and (given.data or given.servers > 1 or given.workers):
        raise BadFile("--data, --servers and --workers are of processes that are started here; leave --url out")
    if (given.servers > 1 or given.workers) and not given.data:
        raise BadFile("several processes need a database: add --data postgresql (one is started), or its URL")
    if given.data and given.data != "postgresql" and "://" not in given.data:
        raise BadFile(f"--data: {given.data!r} is neither `postgresql` nor the URL of a database")
    if given.databases and not Path(given.databases).is_dir():
        raise BadFile(f"--databases: there is no folder {given.databases!r}")
    named = ("wire", "parallel", "kill", "seed", "url", "sim_url", "databases", "data", "servers", "workers")
    return Options(**{name: getattr(given, name) for name in named})


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Replay recorded airline conversations through the running server.")
    parser.add_argument("--db", required=True, help="the database at the start of every conversation (.json[.xz])")
    parser.add_argument("--trajectories", required=True, help="recorded conversations (.json[l][.xz])")
    parser.add_argument("--verbose", action="store_true", help="print every mismatch with its reason to stderr")
    parser.add_argument("--wire", choices=sorted(WIRES), default="openai-chat", help="how the model is spoken to")
    parser.add_argument("--parallel", type=_count, default=8, metavar="N", help="conversations at once (default: 8)")
    parser.add_argument("--limit", type=_count, metavar="N", help="replay only the first N conversations")
    parser.add_argument("--kill", action="store_true", help="kill the server at a random moment in every conversation")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: 0)")
    many = parser.add_argument_group("many processes")
    many.add_argument("--data", default="", metavar="URL", help="a database; `postgresql` starts one of its own")
    many.add_argument("--servers", type=_count, default=1, metavar="N", help="servers on it (default: 1)")
    many.add_argument("--workers", type=int, default=0, metavar="N", help="workers beside them; 0: the servers drive")
    own = parser.add_argument_group("a server of yours", "one that serves examples/airline/replay_agent.py")
    own.add_argument("--url", default="", help="its address")
    own.add_argument("--sim-url", default="", help="the address of the simulated provider that it asks, without /v1")
    own.add_argument("--databases", default="", metavar="FOLDER", help="its REPLAY_DATABASES")
    return parser


if __name__ == "__main__":
    sys.exit(main())
