"""`stanchion serve`, and every data command against it over HTTP and beside it on its data file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import SIMULATED, Cli, Served, start_server


@pytest.mark.parametrize("locked", [False, True], ids=["no key", "with a key"])
def test_the_three_things_to_try_work(cli: Cli, locked: bool) -> None:
    """What `serve` prints is run as it stands, by a shell; where a key is needed it says so, and takes it."""
    key = {"STANCHION_API_KEY": cli.json("keys", "add", "web", "--tenant", "default")["key"]} if locked else {}
    process = cli.start("serve", "agent.py", "--port", "0", *SIMULATED, "--try", "it's me")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(7)]
    assert lines[0].startswith("serving support at http://127.0.0.1:")
    assert lines[1].startswith("SIMULATED")
    assert ("export STANCHION_API_KEY" in lines[3]) is locked
    tried = [line.strip() for line in lines[4:7]]
    path = f"{Path(cli.command()[0]).parent}{os.pathsep}{os.environ['PATH']}"
    outputs = [
        subprocess.run(
            ["bash", "-c", command], cwd=cli.directory, env=cli.environment() | key | {"PATH": path},
            capture_output=True, text=True, check=True, timeout=30,
        ).stdout
        for command in tried
    ]  # fmt: skip
    assert outputs[0] == "hello there\n"
    assert json.loads(outputs[1])["text"] == "hello there"
    assert outputs[2].count("done") == 2
    process.terminate()
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert "stopped" in said


def test_run_at_a_server(served: Served) -> None:
    """With --url the agent's name is enough; approvals are asked about here all the same."""
    cli = served.cli
    done = cli.run("run", "support", "refund A-17", "--url", served.url, "--ask", input="approve\n")
    assert (done.returncode, done.stdout) == (0, "It is settled: refunded 1250 cents of A-17\n")
    assert "refund waits for approval" in done.stderr


def test_the_server_can_come_from_the_environment(served: Served) -> None:
    """STANCHION_URL serves where no option says otherwise; --data beats it."""
    cli = Cli(served.cli.directory, {"STANCHION_URL": served.url})
    assert cli.call("run", "support", "hi").stdout == "hello there\n"
    assert {row["run"] for row in cli.json("runs", "ls")} == {
        row["run"] for row in cli.json("runs", "ls", "--data", "stanchion.db")
    }


@pytest.mark.parametrize("beside", [False, True], ids=["over HTTP", "on the data file"])
def test_a_waiting_run_is_listed_and_decided(served: Served, beside: bool) -> None:
    """The same commands reach a live run over HTTP and through the data file beside the server."""
    cli, where = served.cli, [] if beside else ["--url", served.url]
    cli.call("run", "support", "refund A-17", "--url", served.url, "--no-ask")
    [waiting] = cli.json("decide", "--list", *where)
    assert (waiting["tool"], waiting["arguments"]) == ("refund", {"order_id": "A-17", "cents": 1250})
    run = waiting["run"]
    assert "refund" in cli.call("decide", run, *where).stdout
    wrong = cli.call("decide", run, "retry", *where)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    stale = cli.call("decide", run, waiting["call"], "approve", "--revision", "7", *where)
    assert stale.returncode == 2
    assert cli.call("decide", run, waiting["call"], "reject", "--reason", "no", *where).returncode == 0
    tail = cli.call("runs", "tail", run, "-o", "json", *where)
    events = [json.loads(line) for line in tail.stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "run_finished"
    again = cli.call("decide", run, "approve", *where)
    assert "waits for no decision" in again.stderr
    shown = cli.call("runs", "show", run, *where)
    assert "state     done" in shown.stdout


def test_a_live_run_is_told_something_and_cancelled(served: Served) -> None:
    """`send` and `cancel` over HTTP; the tail says both, and text lines are one per event."""
    cli, where = served.cli, ["--url", served.url]
    cli.call("run", "support", "refund A-17", *where, "--no-ask")
    run = cli.json("decide", "--list", *where)[0]["run"]
    assert cli.call("runs", "send", run, "hurry", *where).returncode == 0
    assert cli.json("runs", "cancel", run, "--reason", "enough", *where) == {"run": run, "posted": "cancel"}
    lines = cli.call("runs", "tail", run, *where).stdout.splitlines()
    assert any("message_added" in line and "hurry" in line for line in lines)
    assert any("cancel_requested" in line and "enough" in line for line in lines)
    assert "outcome=cancelled" in lines[-1]
    over = cli.call("runs", "cancel", run, *where)
    assert (over.returncode, over.stderr.count("\n")) == (2, 1)


def test_budgets_are_set_beside_the_server_and_seen_through_it(served: Served) -> None:
    """A budget is the same from both sides, and `none` takes it away."""
    cli = served.cli
    cli.call("budgets", "set", "user:bea/day", "0.25")
    [seen] = [row for row in cli.json("budgets", "ls", "--url", served.url) if row["ledger"] == "user:bea/day"]
    assert seen["limit_usd"] == "0.25"
    assert cli.json("budgets", "set", "user:bea/day", "none", "--url", served.url)["limit_usd"] is None


def test_an_unknown_run_and_an_unknown_agent_are_said_as_on_a_file(served: Served) -> None:
    """The server's errors come through as one line with the same exit code."""
    for arguments in (["runs", "show", "nosuch"], ["runs", "tail", "nosuch"], ["run", "nobody", "hi"]):
        done = served.cli.call(*arguments, "--url", served.url)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "there is no" in done.stderr


def test_a_key_locks_the_door(cli: Cli) -> None:
    """After `keys add` a server wants the key, and a revoked one opens nothing."""
    made = cli.json("keys", "add", "ci")
    server = start_server(cli)
    try:
        refused = cli.call("runs", "ls", "--url", server.url)
        assert refused.returncode == 2
        assert "--api-key" in refused.stderr
        assert cli.call("runs", "ls", "--url", server.url, "--api-key", made["key"]).returncode == 0
        assert made["key"] not in json.dumps(cli.json("keys", "ls"))
        assert cli.call("keys", "revoke", made["id"]).returncode == 0
        assert "revoked" in cli.call("keys", "ls").stdout
    finally:
        server.stop()


def test_a_killed_server_is_started_again_and_the_run_ends(cli: Cli) -> None:
    """kill -9 with a run that waits: the simulated provider goes with it, and the decision posted meanwhile is taken in."""
    server = start_server(cli)
    cli.call("run", "support", "refund A-17", "--url", server.url, "--no-ask")
    [waiting] = cli.json("decide", "--list")
    server.stop(signal.SIGKILL)
    assert cli.call("decide", waiting["run"], "approve").returncode == 0
    server = start_server(cli)
    try:
        assert cli.call("runs", "tail", waiting["run"], "--url", server.url).returncode == 0
        assert cli.json("runs", "show", waiting["run"])["outcome"] == "done"
        assert (cli.directory / "refunds.txt").read_text() == "A-17 1250\n"
    finally:
        assert server.stop()[0] == 0
    assert cli.call("verify").stdout.startswith("1 run in order")


def test_a_follower_attaches_again_after_a_kill(cli: Cli) -> None:
    """kill -9 in the middle of a model call: the same `stanchion run` goes on with the server's next start, gapless."""
    server = start_server(cli)
    process = cli.start("run", "support", "slow", "--url", server.url, "-o", "json", "--events")
    assert process.stdout is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    server.stop(signal.SIGKILL)
    (cli.directory / "sim.json").write_text('{"default": {"text": "back again"}}')
    server = start_server(cli, "--port", server.url.rsplit(":", 1)[1])
    try:
        rest, said = process.communicate(timeout=40)
        assert process.returncode == 0, said
        assert "attaching again" in said
        *events, view = map(json.loads, [*lines, *rest.splitlines()])
        assert [event["seq"] for event in events] == list(range(1, view["seq"] + 1))
        assert view["text"] == "back again"
    finally:
        server.stop()


def test_the_simulated_provider_ends_with_its_parent(cli: Cli) -> None:
    """Even a killed server leaves no process behind: the pipe to it closes."""
    process = cli.start("sim", "--port", "0", "-o", "json", "--with-parent", stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["simulated"]
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=10) == 0
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()


def test_two_servers_on_one_file_or_one_port(served: Served, tmp_path: Path) -> None:
    """The second says which of the two it is, in one line, and leaves the first alone."""
    cli = served.cli
    port = served.url.rsplit(":", 1)[1]
    same_file = cli.call("serve", "agent.py", "--port", "0", *SIMULATED)
    assert (same_file.returncode, same_file.stderr.count("\n")) == (2, 1)
    assert "another process" in same_file.stderr
    same_port = cli.call("serve", "agent.py", "--port", port, "--data", str(tmp_path / "other.db"), *SIMULATED)
    assert same_port.returncode == 2
    assert f"port {port}" in same_port.stderr


def test_sim_as_a_command(cli: Cli) -> None:
    """The simulated provider alone: it says where it is, that it is simulated, and ends on SIGTERM."""
    process = cli.start("sim", "--port", "0", "--script", "sim.json", "--first-s", "0")
    assert process.stdout is not None
    assert "SIMULATED" in process.stdout.readline()
    process.terminate()
    began = time.monotonic()
    process.communicate(timeout=10)
    assert process.returncode == 0
    assert time.monotonic() - began < 10
