"""Schedules and webhooks over HTTP: made, listed, tried, changed and removed; what is wrong names its field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stanchion import verify_webhook
from tests.runtime.receiver import receiving
from tests.server.serving import Served, served
from tests.waiting import until


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let webhooks go to this machine, as an operator does for a trial."""
    monkeypatch.setenv("STANCHION_WEBHOOK_ALLOW_PRIVATE", "1")
    monkeypatch.setenv("STANCHION_PUBLIC_URL", "https://agents.example")


async def read(server: Served, path: str) -> Any:
    """Read what is there."""
    return (await server.call("GET", path)).json


async def test_a_webhook_over_http(tmp_path: Path) -> None:
    """Made, tried, told of a run, rotated, removed; its secret is shown once."""
    async with receiving() as receiver, served(tmp_path) as server:
        made = await server.call("POST", "/v1/webhooks", {"url": receiver.url, "events": ["run.finished"]})
        assert made.status == 201
        secret, hook = made.json["secret"], made.json["id"]
        listed = await server.call("GET", "/v1/webhooks")
        assert [row["id"] for row in listed.json["webhooks"]] == [hook]
        assert "secret" not in listed.json["webhooks"][0]
        trial = await server.call("POST", f"/v1/webhooks/{hook}/test")
        assert (trial.status, trial.json["type"]) == (202, "webhook.test")
        done = await until(
            lambda: read(server, f"/v1/webhooks/deliveries/{trial.json['id']}"), lambda row: row["standing"] == "done"
        )
        assert (done["http_status"], done["attempts"]) == (204, 1)
        run = (await server.call("POST", "/v1/runs", {"agent": "support", "input": "Hi"})).json["run"]
        message = (await receiver.until(2))[1]
        data = verify_webhook(message.headers, message.body, secret)["data"]
        assert data["links"]["run"] == f"https://agents.example/v1/runs/{run}"
        rows = (await server.call("GET", f"/v1/webhooks/deliveries?run={run}")).json["deliveries"]
        assert [row["id"] for row in rows] == [message.id]
        turned = await server.call("POST", f"/v1/webhooks/{hook}/secret", {"overlap_s": 0})
        assert turned.json["secret"] != secret
        again = await server.call("POST", "/v1/webhooks/redeliver", {"id": message.id})
        assert again.json == {"redelivered": 1}
        verify_webhook((third := (await receiver.until(3))[2]).headers, third.body, turned.json["secret"])
        assert third.id == message.id
        assert (await server.call("PATCH", f"/v1/webhooks/{hook}", {"enabled": True})).json["enabled"]
        assert (await server.call("DELETE", f"/v1/webhooks/{hook}")).json == {"removed": hook}
        assert (await server.call("GET", f"/v1/webhooks/{hook}")).status == 404


async def test_a_callback_over_http(tmp_path: Path) -> None:
    """`webhook` of a start: told once, signed with the tenant's secret; part of what an idempotency key stands for."""
    async with receiving() as receiver, served(tmp_path) as server:
        body = {"agent": "support", "input": "Hi", "webhook": {"url": receiver.url}}
        key = {"idempotency-key": "k"}
        run = (await server.call("POST", "/v1/runs", body, headers=key)).json["run"]
        (message,) = await receiver.until(1)
        secret = (await server.call("GET", "/v1/webhooks/secret")).json["secret"]
        assert verify_webhook(message.headers, message.body, secret)["data"]["run"] == run
        other = body | {"webhook": {"url": receiver.url, "events": ["run.parked"]}}
        assert (await server.call("POST", "/v1/runs", other, headers=key)).status == 422


async def test_a_schedule_over_http(tmp_path: Path) -> None:
    """Made, shown with its next times, run now, paused, resumed, replaced, removed."""
    async with served(tmp_path) as server:
        body = {"cron": "0 9 * * MON-FRI", "agent": "support", "input": "Report.", "tz": "Europe/Berlin"}
        made = await server.call("PUT", "/v1/schedules/daily", body)
        assert (made.status, len(made.json["next_ms"]), made.json["priority"]) == (200, 5, "batch")
        assert (await server.call("POST", "/v1/schedules/daily/run")).status == 202
        row = await until(lambda: read(server, "/v1/schedules/daily"), lambda row: row["last_run"])
        assert row["next_ms"] == made.json["next_ms"]
        await until(lambda: read(server, f"/v1/runs/{row['last_run']}"), lambda run: run["status"] == "ended")
        paused = await server.call("PATCH", "/v1/schedules/daily", {"enabled": False})
        assert paused.json["next_ms"] == []
        assert (await server.call("POST", "/v1/schedules/daily/run")).status == 409
        resumed = await server.call("PATCH", "/v1/schedules/daily", {"enabled": True})
        assert resumed.json["next_ms"] == made.json["next_ms"]
        replaced = await server.call(
            "PUT", "/v1/schedules/daily", body | {"cron": "@hourly", "limits": {"usd": "0.10"}}
        )
        assert (replaced.json["last_run"], replaced.json["limits"]["usd"]) == (row["last_run"], "0.10")
        assert len((await server.call("GET", "/v1/schedules")).json["schedules"]) == 1
        assert (await server.call("DELETE", "/v1/schedules/daily")).json == {"removed": "daily"}
        assert (await server.call("GET", "/v1/schedules/daily")).status == 404


async def test_what_is_wrong_names_its_field(tmp_path: Path) -> None:
    """The field of the expression, the zone, the URL, the event; a tenant sees nothing of another's."""
    async with served(tmp_path) as server:
        schedule = {"cron": "0 9 * * *", "agent": "support", "input": "Hi"}
        for change, field, said in (
            ({"cron": "0 99 * * *"}, "cron", "the hour '99'"),
            ({"tz": "Europe/Berln"}, "tz", "did you mean Europe/Berlin"),
            ({"agent": "nobody"}, "agent", "support"),
            ({"limits": {"usd": "x"}}, "limits.usd", ""),
            ({"every": "5m"}, "every", "unknown"),
        ):
            refused = await server.call("PUT", "/v1/schedules/x", schedule | change)
            assert refused.status in (404, 422), refused.json
            assert refused.json["error"]["field"] == field
            assert said in refused.json["error"]["message"] or field == "every"
        for body, field in (
            ({"url": "ftp://x"}, "url"),
            ({"url": "https://x.test", "events": ["run.begun"]}, "events[0]"),
            ({"url": "https://x.test", "secret": "short"}, "secret"),
        ):
            refused = await server.call("POST", "/v1/webhooks", body)
            assert (refused.status, refused.json["error"]["field"]) == (422, field)
        refused = await server.call(
            "POST", "/v1/runs", {"agent": "support", "input": "Hi", "webhook": {"url": "nowhere"}}
        )
        assert (refused.status, refused.json["error"]["field"]) == (422, "webhook.url")
