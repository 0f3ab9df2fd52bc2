"""What can be wrong with a command line, a file or an address: one line that says it, a stable code, never a traceback."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import SIMULATED, Cli, write_files

NO_ID = "run_00000000000000ab"


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A directory with an agent, one run that is over, and files that are wrong in many ways."""
    directory = tmp_path_factory.mktemp("used")
    write_files(directory)
    cli = Cli(directory)
    assert cli.run("run", "agent.py", "hi", *SIMULATED).returncode == 0
    for name, text in {
        "syntax.py": "x = 1\ndef (:\n",
        "empty.py": "x = 1\n",
        "boom.py": "\nraise RuntimeError('boom')\n",
        "needs.py": "import a_module_that_is_not_there\n",
        "two.py": (directory / "agent.py").read_text() + "\nother = Agent(name='other', model='openai:gpt-4.1')\n",
        "same.py": (directory / "agent.py").read_text() + "\nother = Agent(name='support', model='openai:gpt-4.1')\n",
        "tier.py": (directory / "agent.py").read_text().replace('effect="read"', 'effect="harmless"'),
        "price.py": "from stanchion import Agent\na = Agent(name='a', model='openai:model-nobody-knows')\n",
        "broken.json": '{"rules": [',
        "rules.json": '{"rules": [{"when": {"user": "("}, "reply": {"text": "x"}}]}',
        "list.json": "[1]",
        "noise.db": "this is no database, and long enough to be taken for one " * 10,
    }.items():
        (directory / name).write_text(text)
    (directory / "binary.txt").write_bytes(b"\xff\xfe\x00")
    shutil.copy(directory / "stanchion.db", directory / "torn.db")
    with (directory / "torn.db").open("r+b") as file:
        file.truncate(6000)
    shutil.copy(directory / "stanchion.db", directory / "newer.db")
    connection = sqlite3.connect(directory / "newer.db")
    connection.execute("PRAGMA user_version = 999999")
    connection.execute("UPDATE meta SET value = 999999 WHERE name = 'compatible_from'")
    connection.commit()
    connection.close()
    return cli


BAD = {
    # the command line itself
    "an unknown command": (["frobnicate"], 2, "No such command"),
    "an unknown option": (["runs", "ls", "--colour"], 2, "--colour"),
    "no agent": (["run"], 2, "Missing"),
    "an option without its value": (["runs", "ls", "--limit"], 2, "--limit"),
    "a limit that is no number": (["runs", "ls", "--limit", "many"], 2, "--limit"),
    "a limit of nothing": (["runs", "ls", "--limit", "0"], 2, "--limit"),
    "a state that no run has": (["runs", "ls", "--status", "asleep"], 2, "'asleep' is not one of"),
    "a form that is not there": (["runs", "ls", "-o", "yaml"], 2, "'yaml' is not one of"),
    "a port that does not exist": (["serve", "agent.py", "--port", "70000"], 2, "--port"),
    "two answers to one question": (["run", "agent.py", "hi", "--yes", "--ask"], 2, "--yes and --ask"),
    "two places": (["runs", "ls", "--data", "a.db", "--url", "http://127.0.0.1:1"], 2, "--data and --url"),
    "a tenant for a server": (["runs", "ls", "--tenant", "a", "--url", "http://127.0.0.1:1"], 2, "--tenant"),
    "a grace without end": (["serve", "agent.py", "--grace-s", "inf"], 2, "--grace-s"),
    # agent files
    "no such agent file": (["run", "nofile.py", "hi"], 2, "there is no file nofile.py"),
    "a folder as an agent": (["run", "./", "hi"], 2, "folder"),
    "an agent file that is no Python": (["run", "syntax.py", "hi"], 2, "syntax.py:2"),
    "a file without an agent": (["serve", "empty.py"], 2, "has no agent"),
    "an agent file that raises": (["run", "boom.py", "hi"], 2, "RuntimeError: boom"),
    "an agent file that lacks a module": (["run", "needs.py", "hi"], 2, "a_module_that_is_not_there"),
    "a module that is not there": (["run", "no_such_module", "hi"], 2, "no_such_module"),
    "an agent that the file does not have": (["run", "agent.py:billing", "hi"], 2, "its agents are: support"),
    "a file with two agents": (["run", "two.py", "hi", "--simulated"], 2, "two.py:support, two.py:other"),
    "two agents of one name": (["serve", "same.py"], 2, "two agents named 'support'"),
    "two files with one agent": (["serve", "agent.py", "agent.py"], 2, "in an earlier file"),
    "a tier that is none": (["run", "tier.py", "hi", "--simulated"], 2, "harmless"),
    # models, keys, money
    "no key": (["run", "agent.py", "hi"], 2, "pass --simulated"),
    "no key for a server": (["serve", "agent.py"], 2, "ANTHROPIC_API_KEY is not set"),
    "a model that is no model": (["run", "agent.py", "hi", "--model", "gpt"], 2, "provider:model"),
    "a provider nobody knows": (["run", "agent.py", "hi", "--model", "acme:x", "--simulated"], 2, "no provider 'acme'"),
    "a price nobody knows": (["run", "price.py", "hi", "--simulated"], 2, "price_usd"),
    "money in words": (["run", "agent.py", "hi", "--usd", "much"], 2, "--usd"),
    "money below nothing": (["run", "agent.py", "hi", "--usd", "-1"], 2, "negative"),
    "no money": (["run", "agent.py", "hi", "--usd", "0"], 2, "--usd"),
    "a budget of a name that is none": (["budgets", "set", "everyone", "5"], 2, "everyone"),
    "a budget that is no amount": (["budgets", "set", "all", "5 dollars"], 2, "USD"),
    "a price of half a model": (["prices", "gpt-5"], 2, "provider:model"),
    "a price nobody knows at all": (["prices", "acme:x"], 2, "no price is known"),
    "a date that is none": (["prices", "openai:gpt-5", "--on", "tomorrow"], 2, "--on"),
    # input
    "nothing said": (["run", "agent.py", " "], 2, "INPUT"),
    "a session's name with a slash": (["run", "agent.py", "hi", "--session", "a/b", *SIMULATED], 2, "session"),
    # the simulated provider
    "a script that is not there": (["run", "agent.py", "hi", "--simulated", "--sim-script", "no.json"], 2, "no.json"),
    "a script that is no JSON": (["sim", "--script", "broken.json"], 2, "broken.json"),
    "a script of another form": (["sim", "--script", "list.json"], 2, "list.json"),
    "a script with a bad pattern": (["sim", "--script", "rules.json"], 2, "rules[0].when.user"),
    "a fault that is none": (["sim", "--fault", "earthquake"], 2, "earthquake"),
    "jitter above one": (["sim", "--jitter", "2"], 2, "--jitter"),
    # data files
    "a database that is no PostgreSQL": (["runs", "ls", "--data", "mysql://h/x"], 2, "--data mysql://..: write a path"),
    "a data file that is not there": (["runs", "ls", "--data", "none.db"], 2, "there is no data file"),
    "a directory as a data file": (["runs", "ls", "--data", "."], 2, "directory"),
    "a data file that is none": (["runs", "ls", "--data", "noise.db"], 2, "not a SQLite database"),
    "a torn data file": (["runs", "ls", "--data", "torn.db"], 1, "damaged"),
    "a torn data file to verify": (["verify", "--data", "torn.db"], 1, "damaged"),
    "a data file of a newer version": (["runs", "ls", "--data", "newer.db"], 2, "newer.db"),
    "a data file nobody can make": (
        ["run", "agent.py", "hi", *SIMULATED, "--data", "/proc/none/a.db"],
        2,
        "/proc/none",
    ),
    "a store that is not known": (
        ["run", "agent.py", "hi", *SIMULATED, "--data", "redis://x"],
        2,
        "write a path, sqlite:",
    ),
    # runs and decisions
    "a run that is not there": (["runs", "show", NO_ID], 2, "runs ls"),
    "a run that is not there, followed": (["runs", "tail", NO_ID], 2, "runs ls"),
    "a run that is not there, cancelled": (["runs", "cancel", NO_ID], 2, "runs ls"),
    "a run that is not there, told": (["runs", "send", NO_ID, "hi"], 2, "runs ls"),
    "a run that is not there, verified": (["verify", NO_ID], 2, "runs ls"),
    "a run that is not there, decided": (["decide", NO_ID, "approve"], 2, "runs ls"),
    "a run that is over, cancelled": (["runs", "cancel", "OVER"], 2, "over"),
    "a run that is over, told": (["runs", "send", "OVER", "hi"], 2, "over"),
    "a run that is over, revived": (["runs", "revive", "OVER"], 2, "not parked"),
    "a run that is over, decided": (["decide", "OVER", "approve"], 2, "waits for no decision"),
    "nothing to say": (["runs", "send", "OVER", ""], 2, "TEXT"),
    "no decision": (["decide"], 2, "--list"),
    "a decision that is none": (["decide", "OVER", "maybe"], 2, "'maybe' is no decision"),
    "too many words": (["decide", "OVER", "1.0", "2.0", "approve"], 2, "RUN [CALL] DECISION"),
    "an edit of nothing": (["decide", "OVER", "edit"], 2, "--arguments"),
    "an edit that is no JSON": (["decide", "OVER", "edit", "--arguments", "{"], 2, "--arguments"),
    "an edit that is no object": (["decide", "OVER", "edit", "--arguments", "[1]"], 2, "--arguments"),
    "an edit from no file": (["decide", "OVER", "edit", "--arguments", "@none.json"], 2, "none.json"),
    "a result from a file that is no text": (["decide", "OVER", "record", "--result", "@binary.txt"], 2, "UTF-8"),
    "an approval with arguments": (["decide", "OVER", "approve", "--arguments", "{}"], 2, "only `edit`"),
    # servers and keys
    "an address that is none": (["runs", "ls", "--url", "localhost:8420"], 2, "--url"),
    "nobody at the address": (["runs", "ls", "--url", "http://127.0.0.1:1"], 1, "cannot be reached"),
    "a file at a server": (["run", "agent.py", "hi", "--url", "http://127.0.0.1:1"], 2, "is a file"),
    "a model at a server": (
        ["run", "a", "hi", "--url", "http://127.0.0.1:1", "--simulated"],
        2,
        "do not go with --url",
    ),
    "other machines without a key": (["serve", "agent.py", "--host", "0.0.0.0", *SIMULATED], 2, "keys add"),
    "a key without a name": (["keys", "add", " "], 2, "NAME"),
    "a key that is not there": (["keys", "revoke", "key_0"], 2, "keys ls"),
    "a tenant with a slash": (["keys", "add", "ci", "--tenant", "a/b"], 2, "tenant"),
}


@pytest.mark.parametrize(("arguments", "code", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_a_code(used: Cli, arguments: list[str], code: int, said: str) -> None:
    """stdout stays empty, stderr ends in one line that names what is wrong."""
    over = used.json("runs", "ls")[-1]["run"] if "OVER" in arguments else ""
    done = used.call(*(over if argument == "OVER" else argument for argument in arguments))
    *before, line = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert line.startswith("error: ")
    assert said in line
    assert [other for other in before if not other.startswith("SIMULATED")] == []
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_nothing_was_lost_by_any_of_it(used: Cli) -> None:
    """After all that, the data file is whole."""
    assert used.json("verify")["ok"]


def test_the_installed_command_reports_as_the_module_does(used: Cli) -> None:
    """The entry point of the package, as a process: the same line and code."""
    command = Path(sys.executable).with_name("stanchion")
    done = subprocess.run(
        [command, "runs", "show", NO_ID], cwd=used.directory, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_debug_shows_the_traceback(used: Cli) -> None:
    """STANCHION_DEBUG=1 is for us."""
    done = Cli(used.directory, {"STANCHION_DEBUG": "1"}).call("runs", "show", NO_ID)
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_a_bug_of_ours_is_one_line_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks inside a command: where it was, code 70, no traceback."""

    def broken() -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("stanchion.cli.version.own_version", broken)
    done = cli.call("version")
    assert done.returncode == 70
    assert done.stderr.startswith("error: internal: RuntimeError: two; lines")
    assert "STANCHION_DEBUG=1" in done.stderr
