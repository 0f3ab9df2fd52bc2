"""`stanchion shares` and `stanchion workers`, on a data file and over HTTP."""

from __future__ import annotations

import pytest

from stanchion.cli.output import table
from stanchion.cli.shares import WORKER_COLUMNS
from tests.cli.conftest import Cli, Served


def test_shares_are_set_listed_and_taken_back(cli: Cli) -> None:
    """What is not named stays; `none` takes a value back; defaults are shown as nothing."""
    cli.json("shares", "set", "--tenant", "acme", "--weight", "3", "--max-running", "5", "--data", "t.db")
    done = cli.call("shares", "set", "--tenant", "acme", "--max-queued", "9", "--data", "t.db")
    assert (done.returncode, done.stderr) == (0, "acme, tenant: weight 3, max running 5, max queued 9\n")
    cli.json("shares", "set", "user:*", "--every", "--max-running", "2", "--data", "t.db")
    back = cli.json("shares", "set", "--tenant", "acme", "--max-running", "none", "--data", "t.db")
    assert back == {"tenant": "acme", "scope": "tenant", "weight": 3, "max_running": None, "max_queued": 9}
    listed = cli.json("shares", "ls", "--data", "t.db")
    assert [(row["tenant"], row["scope"]) for row in listed] == [("", "user:*"), ("acme", "tenant")]
    shown = cli.call("shares", "ls", "--data", "t.db").stdout
    assert "(every)" in shown
    assert cli.json("workers", "ls", "--data", "t.db") == []


def test_what_cannot_be_set_is_said(cli: Cli) -> None:
    """Nothing to set, both of two answers, no number: each is one line and exit code 2."""
    for words, said in (
        ((), "--weight, --max-running or --max-queued"),
        (("--every", "--tenant", "a", "--weight", "2"), "give one of them"),
        (("--weight", "many"), "--weight: must be a number or none"),
        (("--weight", "²"), "--weight: must be a number or none"),
        (("agent:x", "--weight", "2"), "weight: is a tenant's"),
        (("user:ann", "--every", "--max-running", "2"), "name the tenant"),
    ):
        done = cli.call("shares", "set", *words, "--data", "t.db")
        assert done.returncode == 2, done.stderr
        assert said in done.stderr


def test_a_worker_that_is_gone_is_told_from_one_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    """A worker that was not heard of is listed as gone, without the runs that it drove when it died."""
    row = {"name": "w", "agents": {"a": ""}, "version": "0.1.0", "host": "h", "pid": 1, "active": 1, "max_active": 9}
    rows = [row | {"begun_per_s": 0.5, "seen_s_ago": 3.0}, row | {"begun_per_s": 0.5, "seen_s_ago": 60.0}]
    table(rows, WORKER_COLUMNS, empty="")
    works, gone = capsys.readouterr().out.splitlines()[1:]
    assert "1 of 9" in works
    assert "gone" not in works
    assert gone.endswith("60 s ago, gone")
    assert "1 of 9" not in gone


def test_a_server_is_asked(served: Served) -> None:
    """With --url the same commands go through the server; it lists itself as a worker."""
    cli = served.cli
    set_ = cli.json("shares", "set", "--max-running", "7", "--url", served.url)
    assert (set_["tenant"], set_["max_running"]) == ("default", 7)
    assert [row["max_running"] for row in cli.json("shares", "ls", "--url", served.url)] == [7]
    rows = cli.json("workers", "ls", "--url", served.url)
    assert list(rows[0]["agents"]) == ["support"]
    assert rows[0]["max_active"] == 4_000
    assert "support" in cli.call("workers", "ls", "--url", served.url).stdout
    done = cli.json("run", "support", "hi", "--batch", "--url", served.url)
    assert done["outcome"] == "done"
