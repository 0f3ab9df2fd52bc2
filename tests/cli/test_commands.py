"""The small commands, the forms of output, help, and what is imported for them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from stanchion.cli import doctor
from stanchion.cli.errors import ExitCode
from stanchion.cli.main import app
from stanchion.cli.output import clean, one_line, usd
from tests.cli.conftest import Cli


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something, by its path."""
    command = command or get_command(app)
    children = getattr(command, "commands", {})
    if not children:
        yield path
    for name, child in children.items():
        yield from commands(child, (*path, name))


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_help_has_an_example_and_o_json(cli: Cli, path: tuple[str, ...]) -> None:
    """`--help` of every command: an example that calls it, and the JSON form."""
    done = cli.call(*path, "--help")
    assert done.returncode == 0
    assert f"stanchion {' '.join(path)}" in done.stdout.partition("Example")[2]
    assert "--output" in done.stdout


def test_the_exit_codes_are_the_documented_ones(cli: Cli) -> None:
    """Scripts rely on them: they never change their meaning."""
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0, "FAILED": 1, "USAGE": 2, "HALTED": 3, "WAITING": 4, "CANCELLED": 5, "ESCALATED": 6, "INTERNAL": 70,
        "INTERRUPTED": 130,
    }  # fmt: skip
    said = cli.call("--help").stdout
    assert "0 done, 1 failed, 2 usage, 3 halted" in said


def test_the_command_line_imports_nothing_heavy() -> None:
    """What a command needs it imports itself; `stanchion --help` must not wait for a web framework."""
    program = "import json, sys, stanchion.cli.main; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    heavy = {"aiohttp", "apsw", "fastapi", "pydantic", "rich", "starlette", "uvicorn", "uvloop", "stanchion.runtime"}
    assert loaded & heavy == set()
    assert len(loaded) < 330


def test_version(cli: Cli) -> None:
    """As text and as JSON."""
    found = cli.json("version")
    assert cli.call("version").stdout.startswith(f"stanchion {found['stanchion']} (Python {found['python']}")


def test_prices(cli: Cli) -> None:
    """A known price, on a date, with its tiers; the table says the same."""
    found = cli.json("prices", "anthropic:claude-sonnet-4-5", "--on", "2026-01-01")
    assert (found["input"], found["output"], found["on"]) == ("3.00", "15.00", "2026-01-01")
    assert "$15.00" in cli.call("prices", "anthropic:claude-sonnet-4-5").stdout


def test_a_budget_holds_a_run(quick: Cli) -> None:
    """What `budgets set` says is what a run may spend."""
    assert quick.call("budgets", "set", "user:ann", "0.000001").returncode == 0
    done = quick.call("run", "agent.py", "hi", "--user", "ann")
    assert done.returncode == 3
    assert "user:ann" in quick.call("budgets", "ls").stdout
    assert quick.call("run", "agent.py", "hi", "--user", "bob").returncode == 0


def test_verify_names_the_first_bad_event(quick: Cli) -> None:
    """An event is changed in the file behind our back: the run and the seq are named, exit code 1."""
    for _ in range(2):
        assert quick.call("run", "agent.py", "hi").returncode == 0
    assert quick.call("verify").stdout.startswith("2 runs in order: 8 events")
    run = quick.json("runs", "ls")[1]["run"]
    tamper(quick.directory / "stanchion.db", run, seq=3)
    done = quick.call("verify")
    assert done.returncode == 1
    assert f"BROKEN {run} at event 3" in done.stdout
    assert quick.call("verify", run).returncode == 1
    found = json.loads(quick.call("verify", "-o", "json").stdout)
    assert (found["ok"], found["runs"], [each["bad_seq"] for each in found["broken"]]) == (False, 2, [3])


def tamper(path: Path, run: str, *, seq: int) -> None:
    """Put the content of the event before it into an event's place."""
    connection = sqlite3.connect(path)
    [(number,)] = connection.execute("SELECT no FROM runs WHERE run = ?", (run,)).fetchall()
    other = "(SELECT envelope FROM events WHERE run = :run AND seq = :seq - 1)"
    connection.execute(
        f"UPDATE events SET envelope = {other} WHERE run = :run AND seq = :seq", {"run": number, "seq": seq}
    )
    connection.commit()
    connection.close()


def test_a_reader_that_has_enough_ends_it_quietly(quick: Cli) -> None:
    """`stanchion .. | head -1`: no message, no traceback."""
    assert quick.call("run", "agent.py", "hi").returncode == 0
    run = quick.json("runs", "ls")[0]["run"]
    process = quick.start("runs", "tail", run)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=20) == 0
    assert said == ""


def test_a_page_of_runs_says_how_to_go_on(quick: Cli) -> None:
    """--before takes the last run of the page before."""
    for _ in range(2):
        quick.call("run", "agent.py", "hi")
    both = [row["run"] for row in quick.json("runs", "ls")]
    first = quick.call("runs", "ls", "--limit", "1")
    assert f"--before {both[0]}" in first.stderr
    assert [row["run"] for row in quick.json("runs", "ls", "--before", both[0])] == both[1:]
    assert quick.call("runs", "ls", "-q").stdout.split() == both


def test_a_table_is_drawn_on_a_terminal_and_plain_elsewhere(cli: Cli) -> None:
    """Columns line up in a pipe without an escape sequence, and NO_COLOR keeps colour off a terminal."""
    plain = cli.call("doctor").stdout
    heading = next(line for line in plain.splitlines() if "found" in line)
    assert heading.index("check") == plain.splitlines()[1].index("python")
    leader, follower = pty.openpty()
    environment = cli.environment() | {"TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(
        cli.command("doctor"), cwd=cli.directory, env=environment, stdout=follower, stderr=follower
    )
    os.close(follower)
    drawn = b""
    while b"sandbox" not in drawn:
        drawn += os.read(leader, 4096)
    process.wait(timeout=20)
    os.close(leader)
    assert b"\x1b[3" not in drawn


def test_doctor_finds_what_is_wrong(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data file that is none, a port in use, no key: each with its way out; a key is never shown."""
    (cli.directory / "stanchion.db").write_text("no database " * 100)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = cli.call("doctor", "--port", port, "-o", "json")
    found = {each["check"]: each for each in json.loads(done.stdout)["findings"]}
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (1, False)
    assert found["data file"]["level"] == "fail"
    assert found["port"]["level"] == "warn"
    assert found["model keys"]["level"] == "warn"
    assert all(each["mend"] for each in found.values() if each["level"] != "ok")
    secret = Cli(cli.directory, {"ANTHROPIC_API_KEY": "sk-very-secret"}).call("doctor").stdout
    assert "ANTHROPIC_API_KEY" in secret
    assert "very-secret" not in secret


def test_doctor_sees_that_a_data_file_is_not_ours_or_not_to_be_written(cli: Cli) -> None:
    """Where `serve` would refuse a file, doctor does not call it sound."""
    with contextlib.closing(sqlite3.connect(cli.directory / "theirs.db")) as theirs:
        theirs.execute("CREATE TABLE t (a)")
        theirs.commit()
    done = cli.call("doctor", "--data", "theirs.db")
    assert done.returncode == 1
    assert "another program's database" in done.stdout
    (cli.directory / "folder.db").mkdir()
    done = cli.call("doctor", "--data", "folder.db")
    assert done.returncode == 1
    assert "cannot be read and written" in done.stdout


def test_doctor_on_a_sound_directory(cli: Cli) -> None:
    """Nothing fails where everything is in order, and a missing directory says how to make it."""
    done = cli.call("doctor", "--data", "fresh.db")
    assert done.returncode == 0
    assert "fresh.db is not there yet" in done.stdout
    gone = cli.call("doctor", "--data", "none/fresh.db")
    assert gone.returncode == 1
    assert "mkdir -p" in gone.stdout


def test_doctor_survives_a_check_that_breaks() -> None:
    """A check's own failure is a finding."""

    def broken() -> doctor.Finding:
        raise ValueError("no")

    found = doctor._tried("clock", broken)
    assert (found.level, "ValueError: no" in found.found) == ("fail", True)


@pytest.mark.parametrize(
    ("kind", "level"), [("nfs4", "fail"), ("tmpfs", "warn"), ("overlay", "warn"), ("ext4", "ok"), ("", "ok")]
)
def test_doctor_knows_file_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, level: str) -> None:
    """Locks do not hold over a network; what is in memory does not last."""
    monkeypatch.setattr(doctor, "_kind_of", lambda _: kind)
    assert doctor.file_system(tmp_path).level == level


@pytest.mark.parametrize(
    ("nano", "text"),
    [(0, "$0.00"), (1, "$0.000001"), (1_000_000_000, "$1.00"), (1_234_567_890, "$1.234568"), (500_000_000, "$0.50")],
)
def test_money_is_never_shown_too_small(nano: int, text: str) -> None:
    """Rounded up to a millionth."""
    assert usd(nano) == text


def test_texts_are_made_safe_and_short() -> None:
    """Escape sequences are shown, line breaks kept, and one line is one line."""
    assert clean("a\x1b[31mb\n\tc\u202e") == "a\\x1b[31mb\n\tc\\u202e"
    assert one_line("a\n b" + "c" * 200, 10) == "a bcccccc…"
