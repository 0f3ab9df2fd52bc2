"""`stanchion shares` and `stanchion workers`, on a data file and over HTTP."""

from __future__ import annotations

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
        (("agent:x", "--weight", "2"), "weight: is a tenant's"),
        (("user:ann", "--every", "--max-running", "2"), "name the tenant"),
    ):
        done = cli.call("shares", "set", *words, "--data", "t.db")
        assert done.returncode == 2, done.stderr
        assert said in done.stderr


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
