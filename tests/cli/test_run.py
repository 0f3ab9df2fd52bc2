"""`stanchion run`: the answer, what is shown of the way to it, approvals, Ctrl-C, exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess

from tests.cli.conftest import SIMULATED, Cli


def test_the_answer_goes_to_stdout_and_the_rest_to_stderr(cli: Cli) -> None:
    """A pipe gets the answer alone; a person also reads that it was simulated, and what it would have cost."""
    done = cli.run("run", "agent.py", "hi", *SIMULATED)
    assert (done.returncode, done.stdout) == (0, "hello there\n")
    assert "SIMULATED" in done.stderr
    assert "done · 1 turn · 0 tool calls" in done.stderr
    assert "$0.00" in done.stderr


def test_input_can_come_from_stdin(quick: Cli) -> None:
    """`-` is the convention."""
    done = quick.run("run", "agent.py", "-", "-o", "json", input="hi\n")
    assert json.loads(done.stdout)["text"] == "hello there"


def test_a_run_that_waits_says_how_to_decide_and_goes_on_when_it_is_decided(quick: Cli) -> None:
    """Exit code 4, a decision posted to the data file, and the run goes on with the next processes that have its agent.

    Each drives it until its own run is over, which may be before this one is: the next takes it up where it stands.
    """
    done = quick.call("run", "agent.py", "refund A-17")
    assert done.returncode == 4
    assert 'lookup_order(order_id="A-17")  ok  14 chars' in done.stderr
    [row] = quick.json("runs", "ls")
    assert f"stanchion decide {row['run']} approve" in done.stderr
    assert not (quick.directory / "refunds.txt").exists()
    assert quick.call("decide", row["run"], "approve", "--by", "ann").returncode == 0
    view = row
    for _ in range(5):
        if view["outcome"]:
            break
        assert quick.call("run", "agent.py", "hi").returncode == 0
        view = quick.json("runs", "show", row["run"])
    assert (view["outcome"], view["text"]) == ("done", "It is settled: refunded 1250 cents of A-17")
    assert (quick.directory / "refunds.txt").read_text() == "A-17 1250\n"


def test_yes_approves(quick: Cli) -> None:
    """With --yes nobody is asked, and the tool's line says what it brought."""
    done = quick.call("run", "agent.py", "refund A-17", "--yes")
    assert done.returncode == 0
    assert done.stdout == "It is settled: refunded 1250 cents of A-17\n"
    assert 'refund(order_id="A-17", cents=1250)  ok  27 chars' in done.stderr


def test_a_person_approves_with_other_arguments(quick: Cli) -> None:
    """A word that is no decision and arguments that do not fit are asked about again; the edit is run as edited."""
    answers = 'what\nedit\n{\nedit\n{"order_id": 1}\ned\n{"order_id": "A-17", "cents": 5}\n'
    done = quick.run("run", "agent.py", "refund A-17", "--ask", input=answers)
    assert done.returncode == 0, done.stderr
    assert (quick.directory / "refunds.txt").read_text() == "A-17 5\n"
    assert 'refund(order_id="A-17", cents=5)  ok' in done.stderr
    assert "refund waits for approval" in done.stderr
    assert "error: this is no JSON object" in done.stderr
    assert "error: arguments:" in done.stderr


def test_a_person_rejects_and_the_model_reads_why(quick: Cli) -> None:
    """The reason is the result of the call."""
    done = quick.run("run", "agent.py", "refund A-17", "--ask", input="r\nnot today\n")
    assert done.returncode == 0
    assert "not today" in done.stdout
    assert not (quick.directory / "refunds.txt").exists()


def test_a_person_who_goes_away_leaves_it_waiting(quick: Cli) -> None:
    """`later`, and the end of the input, decide nothing."""
    assert quick.run("run", "agent.py", "refund A-17", "--ask", input="later\n").returncode == 4
    assert quick.run("run", "agent.py", "refund A-17", "--ask", input="").returncode == 4


def test_a_limit_ends_it_with_its_own_code(quick: Cli) -> None:
    """The model goes in circles until its turns are used up, or the loop is seen: halted."""
    done = quick.call("run", "agent.py", "circle", "-o", "json")
    view = json.loads(done.stdout)
    assert (done.returncode, view["outcome"]) == (3, "halted")


def test_a_budget_of_the_run_ends_it(quick: Cli) -> None:
    """--usd narrows the agent's own limit; a call that may cost more does not leave."""
    done = quick.call("run", "agent.py", "hi", "--usd", "0.000001", "-o", "json")
    view = json.loads(done.stdout)
    assert (done.returncode, view["outcome"], view["usd"]) == (3, "halted", "0.00")


def test_events_are_lines_and_the_run_is_the_last(quick: Cli) -> None:
    """`-o json --events` is a stream: gapless events, then the run."""
    done = quick.call("run", "agent.py", "hi", "-o", "json", "--events")
    *events, view = map(json.loads, done.stdout.splitlines())
    assert [event["seq"] for event in events] == list(range(1, view["seq"] + 1))
    assert events[-1]["type"] == "run_finished"


def test_a_session_goes_on(quick: Cli) -> None:
    """Two runs in one session are one conversation."""
    for _ in range(2):
        assert quick.call("run", "agent.py", "hi", "--session", "s1", "--user", "ann").returncode == 0
    assert [row["session"] for row in quick.json("runs", "ls", "--user", "ann")] == ["s1", "s1"]


def test_control_characters_of_a_model_do_not_reach_the_terminal(quick: Cli) -> None:
    """A title or a colour that a model sends is shown as text."""
    done = quick.call("run", "agent.py", "escape")
    assert done.stdout == "\\x1b]0;owned\\x07 red\n"


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Read stderr until a text stands in it."""
    assert process.stderr is not None
    seen = ""
    while text not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    return seen


def test_ctrl_c_cancels_the_run(cli: Cli) -> None:
    """Once: the run is cancelled, waited for, and ends as such."""
    process = cli.start("run", "agent.py", "slow", *SIMULATED)
    wait_for(process, "SIMULATED")
    started(cli)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 5, said
    assert "cancelling the run" in said
    [row] = cli.json("runs", "ls")
    assert row["outcome"] == "cancelled"


def test_ctrl_c_in_the_middle_of_a_question_cancels_too(cli: Cli) -> None:
    """The terminal asks about a call; the person wants out."""
    process = cli.start("run", "agent.py", "refund A-17", *SIMULATED, "--ask", stdin=subprocess.PIPE)
    wait_for(process, "why ")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 5
    process.communicate()
    assert not (cli.directory / "refunds.txt").exists()


def test_a_second_ctrl_c_leaves_the_run_to_go_on(cli: Cli) -> None:
    """A tool that takes its time cannot be cancelled at once: the person leaves, the process with the agent goes on."""
    agent = cli.directory / "agent.py"
    slow = "import asyncio\n" + agent.read_text().replace("    with Path", "    await asyncio.sleep(60)\n    with Path")
    agent.write_text(slow)
    process = cli.start("run", "agent.py", "refund A-17", *SIMULATED, "--yes")
    wait_for(process, "lookup_order")
    started(cli, "tool_call_started", 2)
    process.send_signal(signal.SIGINT)
    wait_for(process, "cancelling")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    [row] = cli.json("runs", "ls")
    assert row["status"] != "ended"


def started(cli: Cli, kind: str = "model_call_started", times: int = 1) -> None:
    """Wait until the journal says that something left."""
    seen = 0
    while seen < times:
        rows = cli.call("runs", "ls", "-o", "json")
        if rows.returncode == 0 and (found := json.loads(rows.stdout)):
            lines = cli.call("runs", "tail", found[0]["run"], "--no-follow").stdout
            seen = lines.count(kind)


def test_a_terminal_streams_text_and_asks(cli: Cli) -> None:
    """On a terminal the text of every turn is shown as it comes, and what waits is asked about unbidden."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        cli.command("run", "agent.py", "refund A-17", *SIMULATED), cwd=cli.directory,
        env=cli.environment() | {"TERM": "xterm"}, stdin=follower, stdout=follower, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    seen = read_until(leader, "later? ")
    assert "Let me look." in seen
    os.write(leader, b"approve\n")
    seen = read_until(leader, "run run_")
    assert process.wait(timeout=20) == 0
    os.close(leader)
    assert "It is settled: refunded 1250 cents of A-17" in seen


def test_a_terminal_shows_what_is_under_way(cli: Cli) -> None:
    """A tool that takes its time is seen while it runs; colour is ours alone, and NO_COLOR takes it away."""
    agent = cli.directory / "agent.py"
    agent.write_text(
        "import asyncio\n" + agent.read_text().replace("    with Path", "    await asyncio.sleep(1)\n    with Path")
    )
    leader, follower = pty.openpty()
    environment = {name: value for name, value in cli.environment().items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        cli.command("run", "agent.py", "refund A-17", *SIMULATED, "--yes"), cwd=cli.directory,
        env=environment | {"TERM": "xterm"}, stdin=follower, stdout=follower, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    seen = read_until(leader, 'refund(order_id="A-17", cents=1250) ..')
    seen += read_until(leader, "run run_")
    assert process.wait(timeout=20) == 0
    os.close(leader)
    assert "\x1b[2m" in seen
    assert "\\x1b" not in seen


def read_until(terminal: int, text: str) -> str:
    seen = ""
    while text not in seen:
        seen += os.read(terminal, 4096).decode()
    return seen


def test_attempts_that_failed_are_said_in_words(cli: Cli) -> None:
    """Each attempt of a tool that will not answer is one readable line, without the journal's fields."""
    (cli.directory / "shy.py").write_text(
        "from stanchion import Agent, Model, NotDone, tool\n\n\n"
        '@tool(effect="read")\nasync def lookup_order(order_id: str) -> str:\n'
        '    """Look an order up."""\n'
        '    raise NotDone("the shop is closed", retry_after_s=0.01)\n\n\n'
        'shy = Agent(name="shy", identity="x", tools=[lookup_order], model="anthropic:claude-sonnet-4-5")\n'
    )
    said = cli.call("run", "shy.py", "lookup_order order_id=A-17", "--simulated").stderr
    assert 'lookup_order(order_id="A-17")  attempt 1 failed: the shop is closed' in said
    assert "retry_at_ms" not in said


def test_a_provider_that_is_away_is_said_with_its_reason(cli: Cli) -> None:
    """Each failed attempt says why, and the end says what the run came to; nothing of the log is in between."""
    (cli.directory / "away.py").write_text(
        "from stanchion import Agent, Model\nfrom stanchion.core.bundle import RetryPolicy\n\n"
        "model = Model('anthropic:claude-sonnet-4-5', retries=RetryPolicy(attempts=2, base_s=0.01))\n"
        "away = Agent(name='away', identity='x', model=model)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]  # free again when the command runs
    address = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}", "ANTHROPIC_API_KEY": "sk-hidden"}
    done = Cli(cli.directory, address).call("run", "away.py", "hi")
    assert done.returncode == 1
    first, second, last = done.stderr.splitlines()
    assert first.startswith("  model call failed, attempt 1: no connection: ")
    assert second.startswith("  model call failed, attempt 2: no connection: ")
    assert last.startswith("failed (model:connect) · ")
    assert "sk-hidden" not in done.stderr
