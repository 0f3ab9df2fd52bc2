"""`stanchion schedule` and `stanchion webhooks`: on a data file and at a server alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Served, start_server, write_files

DAILY = ("schedule", "add", "daily", "0 9 * * MON-FRI", "support", "hello", "--tz", "Europe/Berlin")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that may post to this machine."""
    directory = tmp_path_factory.mktemp("served")
    write_files(directory)
    server = start_server(Cli(directory, {"STANCHION_WEBHOOK_ALLOW_PRIVATE": "1"}))
    yield server
    server.stop()


@pytest.mark.parametrize("where", ["file", "server"])
def test_a_schedule(tmp_path: Path, server: Served, where: str) -> None:
    """Made with its next five times, listed, shown, paused, resumed, removed."""
    cli = Cli(tmp_path, {"STANCHION_URL": server.url} if where == "server" else {})
    made = cli.call(*DAILY)
    assert made.returncode == 0, made.stderr
    assert "daily starts support at:" in made.stderr
    lines = made.stdout.splitlines()
    assert len(lines) == 5
    assert all(" 09:00 CE" in line for line in lines), lines
    again = cli.call(*DAILY)
    assert again.returncode == 2
    assert "there is a schedule 'daily' already" in again.stderr
    assert cli.json(*DAILY, "--replace", "--usd", "0.10")["limits"]["usd"] == "0.10"
    assert [row["name"] for row in cli.json("schedule", "ls")] == ["daily"]
    assert "Europe/Berlin" in cli.call("schedule", "ls").stdout
    assert "next times" in cli.call("schedule", "show", "daily").stderr
    assert cli.json("schedule", "pause", "daily")["enabled"] is False
    assert "paused" in cli.call("schedule", "ls").stdout
    assert cli.json("schedule", "resume", "daily")["enabled"] is True
    assert cli.json("schedule", "rm", "daily") == {"removed": "daily"}
    gone = cli.call("schedule", "show", "daily")
    assert gone.returncode != 0
    assert "stanchion schedule ls" in gone.stderr


def test_a_schedule_is_run_now(tmp_path: Path, server: Served) -> None:
    """A worker starts what was made due, and the command prints the run."""
    cli = Cli(tmp_path, {"STANCHION_URL": server.url})
    cli.json("schedule", "add", "soon", "@yearly", "support", "hello")
    done = cli.call("schedule", "run", "soon")
    assert done.returncode == 0, done.stderr
    run = done.stdout.strip()
    assert run.startswith("run_")
    assert cli.json("runs", "show", run)["agent"] == "support"
    cli.call("schedule", "rm", "soon")


def test_an_error_names_the_field(tmp_path: Path) -> None:
    """The wrong field of the expression, and how it is right; exit code 2."""
    cli = Cli(tmp_path)
    for arguments, said in (
        (("schedule", "add", "x", "0 25 * * *", "support", "hi"), "the hour '25' is wrong: it takes 0-23"),
        (("schedule", "add", "x", "@daily", "support", "hi", "--tz", "Europe/Berln"), "did you mean Europe/Berlin"),
        (("webhooks", "add", "http://localhost/x"), "must begin with https://"),
        (("webhooks", "add", "https://10.0.0.1/x"), "is no public address"),
        (("webhooks", "add", "https://x.test", "--event", "run.began"), "'run.began' is none of run.finished"),
    ):
        done = cli.call(*arguments)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr


@pytest.mark.parametrize("where", ["file", "server"])
def test_webhooks(tmp_path: Path, server: Served, where: str) -> None:
    """Made with a secret, listed without it, rotated, tried in vain, its delivery listed, removed."""
    cli = Cli(
        tmp_path, {"STANCHION_URL": server.url} if where == "server" else {"STANCHION_WEBHOOK_ALLOW_PRIVATE": "1"}
    )
    made = cli.json("webhooks", "add", "http://127.0.0.1:9/x", "--event", "run.asked", "--include-answer")
    assert made["secret"].startswith("whsec_")
    (row,) = cli.json("webhooks", "ls")
    assert (row["id"], row["events"], row["include"]) == (made["id"], ["run.asked"], ["answer"])
    assert "secret" not in row
    tried = cli.call("webhooks", "test", made["id"], "--wait-s", "5" if where == "server" else "0")
    assert tried.returncode == 1
    assert ("no connection" if where == "server" else "is one running?") in tried.stderr
    (delivery,) = cli.json("webhooks", "deliveries", "--webhook", made["id"])
    assert delivery["type"] == "webhook.test"
    assert delivery["standing"] in ("pending", "dead")  # (a server has made all its three attempts, or not yet)
    if where == "file":  # nobody delivers, and it stays as it is
        assert delivery["id"] in cli.call("webhooks", "deliveries", "--standing", "pending").stdout
        assert cli.call("webhooks", "redeliver", delivery["id"]).returncode == 2
        assert cli.json("webhooks", "redeliver", made["id"]) == {"redelivered": 0}
    turned = cli.json("webhooks", "rotate", made["id"])
    assert turned["secret"] != made["secret"]
    assert turned["previous_until_ms"] > 0
    own = cli.json("webhooks", "secret")
    assert cli.call("webhooks", "rotate").stdout.strip() != own["secret"]
    assert cli.json("webhooks", "enable", made["id"])["enabled"] is True
    assert cli.json("webhooks", "rm", made["id"]) == {"removed": made["id"]}
    assert cli.call("webhooks", "rm", made["id"]).returncode != 0


def test_the_operator_s_webhooks(tmp_path: Path, server: Served) -> None:
    """On the data itself, apart from any tenant's; no API key speaks for the whole store, so a server is refused."""
    cli = Cli(tmp_path, {"STANCHION_WEBHOOK_ALLOW_PRIVATE": "1"})
    made = cli.json("webhooks", "add", "http://127.0.0.1:9/x", "--operator")
    assert made["events"] == ["budget.alert"]
    assert [row["id"] for row in cli.json("webhooks", "ls", "--operator")] == [made["id"]]
    assert cli.json("webhooks", "ls") == []
    assert cli.call("webhooks", "rm", made["id"]).returncode != 0
    assert cli.call("webhooks", "test", made["id"], "--operator", "--wait-s", "0").returncode == 1
    (delivery,) = cli.json("webhooks", "deliveries", "--operator")
    assert (delivery["endpoint"], delivery["type"]) == (made["id"], "webhook.test")
    assert cli.json("webhooks", "rotate", made["id"], "--operator")["secret"].startswith("whsec_")
    for words, text in (
        (("add", "http://127.0.0.1:9/x", "--event", "run.finished"), "of no tenant's runs"),
        (("rotate",), "the operator has no runs"),
        (("ls", "--url", server.url), "name the data with --data"),
        (("ls", "--tenant", "acme"), "leave --tenant out"),
    ):
        refused = cli.call("webhooks", *words, "--operator")
        assert refused.returncode == 2
        assert text in refused.stderr
    assert cli.json("webhooks", "rm", made["id"], "--operator") == {"removed": made["id"]}
    assert cli.json("webhooks", "ls", "--operator") == []
