"""`stanchion export` and `stanchion import`: what people and scripts are told."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.cli.conftest import Cli


def test_sessions_move_from_file_to_file(quick: Cli) -> None:
    """Export, import, verify, and the session goes on; the same file again changes nothing."""
    assert quick.call("run", "agent.py", "hello", "--session", "s", "--data", "a.db").returncode == 0
    done = quick.call("export", "--all", "-f", "runs.stx.gz", "--data", "a.db")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("exported 1 session, 1 run, ")
    assert done.stderr.endswith(" to runs.stx.gz; it holds contents in plain text\n")
    done = quick.call("import", "runs.stx.gz", "--data", "b.db")
    assert done.stdout.startswith("imported 1 session (1 new), 1 run, "), done.stderr
    assert quick.json("import", "runs.stx.gz", "--data", "b.db")["known"] == 1
    assert quick.json("verify", "--data", "b.db")["ok"] is True
    assert quick.call("run", "agent.py", "again", "--session", "s", "--data", "b.db").returncode == 0
    assert len(quick.json("runs", "ls", "--data", "b.db")) == 2


def test_through_a_pipe(quick: Cli) -> None:
    """Without --out the file goes to stdout, and "-" reads it from stdin."""
    assert quick.call("run", "agent.py", "hello", "--data", "a.db").returncode == 0
    piped = "{0} -m stanchion.cli export --all --data a.db | {0} -m stanchion.cli import - --data b.db -o json"
    shell = ["sh", "-c", piped.format(quick.command()[0])]
    done = subprocess.run(
        shell, cwd=quick.directory, env=quick.environment(), capture_output=True, text=True, timeout=30, check=True
    )
    assert json.loads(done.stdout)["added"] == 1
    assert "exported 1 session" in done.stderr


def test_a_run_that_waits_moves_only_with_live(quick: Cli) -> None:
    """It is left out and named; asked for by name it is refused; --live moves it, and nobody decides about it here."""
    quick.call("run", "agent.py", "refund A-17", "--data", "a.db", "--no-ask")
    run = quick.json("runs", "ls", "--data", "a.db")[0]["run"]
    done = quick.call("export", "--all", "-f", "none.stx", "--data", "a.db")
    assert "left out, for they are not over (--live moves them): 1 session" in done.stderr
    assert f"{run}  waiting" in done.stderr
    done = quick.call("export", run, "-f", "x.stx", "--data", "a.db")
    assert (done.returncode, "--live" in done.stderr) == (2, True), done.stderr
    done = quick.call("export", run, "--live", "-f", "moved.stx", "--data", "a.db")
    assert "1 run that had not ended left this store" in done.stderr
    call = quick.json("runs", "show", run, "--data", "a.db")["waiting"][0]["call"]
    done = quick.call("decide", run, call, "approve", "--data", "a.db")
    assert "was moved to another store" in done.stderr
    assert quick.json("import", "moved.stx", "--data", "b.db")["added"] == 1
    assert quick.json("runs", "show", run, "--data", "b.db")["status"] == "waiting"
    assert quick.json("import", "moved.stx", "--data", "a.db", "--take-back")["back"] == 1


def test_mistakes_are_said_in_one_line(quick: Cli) -> None:
    """Nothing chosen, two things chosen, a file that is there or is none, JSON beside the file itself."""
    assert quick.call("run", "agent.py", "hello", "--data", "a.db").returncode == 0
    (quick.directory / "there.stx").write_bytes(b"{}\n")
    for arguments, why in (
        (("export", "--data", "a.db"), "say what to export"),
        (("export", "--all", "--agent", "x", "--data", "a.db"), "one of them"),
        (("export", "--all", "-o", "json", "--data", "a.db"), "-o json needs --out FILE"),
        (("export", "--all", "-f", "there.stx", "--data", "a.db"), "--force"),
        (("export", "none", "-f", "x.stx", "--data", "a.db"), "there is no run 'none'"),
        (("import", "none.stx", "--data", "b.db"), "there is no file 'none.stx'"),
        (("import", "there.stx", "--data", "b.db"), "it is no export of Stanchion"),
    ):
        done = quick.call(*arguments)
        assert done.returncode == 2, done
        assert (done.stdout, why in done.stderr, done.stderr.count("\n")) == ("", True, 1), done.stderr
    assert (quick.directory / "there.stx").read_bytes() == b"{}\n"
    assert quick.json("export", "--all", "--force", "-f", "there.stx", "--data", "a.db")["runs"] == 1
    assert not Path(quick.directory / "b.db").exists() or quick.json("runs", "ls", "--data", "b.db") == []


def test_what_is_remembered_moves_when_it_is_asked_for(quick: Cli) -> None:
    """Left out it is said so; with --memory it is there, in both times; and who was forgotten stays forgotten."""
    assert quick.call("run", "agent.py", "hello", "--data", "a.db").returncode == 0
    for value, since in (("Lisbon", "2026-01-05"), ("Porto", "2026-03-01")):
        words = ("home city", value, "--user", "ann", "--space", "desk", "--since", since)
        assert quick.call("memory", "add", *words, "--data", "a.db").returncode == 0
    done = quick.call("export", "--all", "-f", "none.stx", "--data", "a.db")
    assert "left out: what is remembered of users (--memory moves it)" in done.stderr
    done = quick.call("export", "--all", "--memory", "-f", "all.stx", "--data", "a.db")
    assert ", 3 facts of 1 user to all.stx;" in done.stderr, done.stderr
    assert "left out" not in done.stderr
    done = quick.call("import", "all.stx", "--data", "b.db")
    assert done.stdout.endswith("; memory of 1 user (1 more)\n"), done.stderr
    assert "memory of 1 user (nothing new)" in quick.call("import", "all.stx", "--data", "b.db").stdout
    for data in ("a.db", "b.db"):
        held = quick.json("memory", "ls", "--user", "ann", "--as-of", "2026-02-01", "--data", data)
        assert [row["value"] for row in held] == ["Lisbon"]
    assert quick.json("memory", "ls", "--user", "ann", "--history", "--data", "a.db") == quick.json(
        "memory", "ls", "--user", "ann", "--history", "--data", "b.db"
    )
    assert quick.call("memory", "forget", "--user", "ann", "--data", "b.db").returncode == 0
    assert "(1 forgotten here, and left so)" in quick.call("import", "all.stx", "--data", "b.db").stdout
