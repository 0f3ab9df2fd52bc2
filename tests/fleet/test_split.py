"""`stanchion worker` and `stanchion api`: processes of different kinds on one database, or on one data file."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.fleet.conftest import started


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def keyless(cli: Cli) -> Cli:
    return Cli(cli.directory)


def test_two_apis_and_two_workers_on_a_database(cli: Cli, dsn: str) -> None:
    """Runs are accepted, streamed, waited for, decided and listed at an API that drives nothing and has no model key."""
    where = ("--data", dsn)
    with (
        started(keyless(cli), "api", "agent.py", "--port", "0", *where) as api,
        started(keyless(cli), "api", "agent.py", "--port", "0", *where) as other,
        started(cli, "worker", "agent.py", "--health-port", "0", *where) as worker,
        started(cli, "worker", "agent.py", *where) as second,
    ):
        assert (api.said["drives"], worker.said["drives"], second.said["health"]) == (False, True, "")
        assert get(f"{api.url}/ready")[0] == 200
        assert get(f"{worker.said['health']}/live") == (200, {"live": True, "active": 0})
        assert get(f"{worker.said['health']}/ready")[1]["ready"]
        streamed = cli.call("run", "support", "hello", "--url", api.url)
        assert (streamed.returncode, streamed.stdout) == (0, "hello there\n")
        waiting = cli.call("run", "support", "refund A-17", "--url", api.url, "--no-ask", "-o", "json")
        assert waiting.returncode == 4
        view = json.loads(waiting.stdout)
        assert cli.call("decide", view["run"], "approve", "--url", other.url).returncode == 0
        assert cli.call("runs", "tail", view["run"], "--url", api.url).returncode == 0
        assert cli.json("runs", "show", view["run"], "--url", other.url)["outcome"] == "done"
        assert (cli.directory / "refunds.txt").read_text() == "A-17 1250\n"
        for process in (worker, second, api, other):
            code, said = process.stop()
            assert code == 0, said
            assert "Traceback" not in said


def test_an_api_beside_the_worker_of_a_data_file(cli: Cli) -> None:
    """On SQLite one worker drives and an API beside it takes requests; a second worker is told why it cannot."""
    with started(keyless(cli), "api", "agent.py", "--port", "0") as api:
        body = json.dumps({"agent": "support", "input": "hello"}).encode()
        request = urllib.request.Request(
            f"{api.url}/v1/runs", body, {"content-type": "application/json", "idempotency-key": "k"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            run = json.load(answer)["run"]
        assert get(f"{api.url}/v1/runs/{run}")[1]["status"] == "runnable"
        with started(cli, "worker", "agent.py", "--health-port", "0") as worker:
            assert cli.call("runs", "tail", run, "--url", api.url).returncode == 0
            assert cli.json("runs", "show", run, "--url", api.url)["text"] == "hello there"
            refused = cli.call("worker", "agent.py")
            assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
            assert "stanchion api" in refused.stderr
            assert "postgresql://" in refused.stderr
            taken = cli.call("worker", "agent.py", "--data", "other.db", "--health-port", worker.said["health"][-5:])
            assert (taken.returncode, "is in use" in taken.stderr) == (2, True)


def test_what_a_client_repeats_is_done_once(cli: Cli) -> None:
    """A message under a key is said once, however often the request comes; another body under it is refused."""
    with started(keyless(cli), "api", "agent.py", "--port", "0") as api:
        run = json.loads(post(f"{api.url}/v1/runs", {"agent": "support", "input": "hello"}, "a")[1])["run"]
        where = f"{api.url}/v1/runs/{run}/messages"
        assert [post(where, {"input": "more"}, "b")[0] for _ in range(3)] == [202] * 3
        assert [post(where, {"input": text}, key)[0] for text, key in (("other", "b"), ("more", "a"))] == [422] * 2
        with started(cli, "worker", "agent.py"):
            tail = cli.call("runs", "tail", run, "-o", "json", "--url", api.url).stdout
            assert tail.count('"message_added"') == 1
        assert post(where, {"input": "more"}, "b")[0] == 202
        assert post(where, {"input": "more"}, "c")[0] == 409


def post(url: str, body: object, key: str) -> tuple[int, str]:
    headers = {"content-type": "application/json", "idempotency-key": key}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=10
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_worker_needs_a_key_and_an_api_does_not(cli: Cli, tmp_path: Path) -> None:
    """What is missing is said before anything is opened; a password is not."""
    refused = keyless(cli).call("worker", "agent.py", "--data", str(tmp_path / "a.db"))
    assert (refused.returncode, "ANTHROPIC_API_KEY" in refused.stderr) == (2, True)
    assert not (tmp_path / "a.db").exists()
    for command in ("worker", "api", "serve"):
        nowhere = cli.call(command, "agent.py", "--data", "postgresql://ann:secret@127.0.0.1:1/none")
        assert nowhere.returncode == 2
        assert "secret" not in nowhere.stderr
        assert "127.0.0.1:1" in nowhere.stderr


@pytest.mark.parametrize(
    ("data", "shows"),
    [
        ("stanchion.db", "stanchion.db"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgresql://ann:s3cret@h:5/d?schema=x", "postgresql://ann:..@h:5/d?schema=x"),
    ],
)
def test_a_password_is_not_shown(data: str, shows: str) -> None:
    """What is printed of the database's URL is without its password."""
    from stanchion.cli.serve import shown

    assert shown(data) == shows
