"""`stanchion costs` on a data file and on a server: tables for people, JSON for programs, and questions that cannot be answered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from stanchion import Agent, Runtime, tool
from stanchion.cli.costs import in_order
from stanchion.cli.main import call
from stanchion.core.message import ToolResult, Usage
from stanchion.core.money import format_usd
from stanchion.testing import ScriptedModel
from stanchion.testing import call as wanted
from tests.cli.conftest import Served

USAGE = Usage(1_000, cache_read_tokens=50_000, cache_write_tokens=2_000, output_tokens=100)
A_CALL = 1_000 * 3_000 + 50_000 * 300 + 2_000 * 3_750 + 100 * 15_000
"""Nano-dollars, by the price of Sonnet 4.6."""


@tool(effect="read")
async def look(n: int) -> str:
    """Look something up."""
    return "found"


def play(request: Any) -> Any:
    looked = any(isinstance(part, ToolResult) for part in request.messages[-1].parts)
    return "It is there." if looked else wanted("look", n=1)


async def fill(data: Path) -> None:
    """Three runs of two calls each, one of them another tenant's."""
    agent = Agent(name="desk", model="anthropic:claude-sonnet-4-6", tools=[look])
    async with await Runtime.open(agent, data=data, clients={"*": ScriptedModel(play, usage=USAGE)}) as runtime:
        for tenant, user in (("default", "ann"), ("default", ""), ("acme", "bob")):
            started = await runtime.start("desk", "go", tenant=tenant, user=user)
            assert (await runtime.wait(started.run, tenant=tenant, timeout_s=30)).outcome == "done"


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A store with runs."""
    path = tmp_path / "t.db"
    asyncio.run(fill(path))
    return str(path)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = call(["costs", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_step_by_another_model(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer by a cheap model with 2,000 tokens of input; a step, a model and a number that are none are refused by name."""
    route = "answer=anthropic:claude-haiku-4-5@2000"
    code, out, _ = said(capsys, "--data", data, "--route", route, "-o", "json")
    report = json.loads(out)
    assert code == 0
    cheap = 2_000 * 1_000 + 100 * 5_000
    assert report["what_if"]["usd"] == format_usd(2 * (A_CALL + cheap))
    assert report["what_if"]["route"] == [route]
    assert "at most 2,000 tokens of input" in report["what_if"]["note"]
    wrong = ("answer", "retry=openai:gpt-5", "answer=openai:gpt-5@", "answer=openai:gpt-5@-1", "answer=openai:gpt-5@x")
    for given, why in (
        *((each, "is not of the form STEP=") for each in wrong),
        ("answer=openai:none", "no price is known"),
    ):
        code, _, err = said(capsys, "--data", data, "--route", given)
        assert code == 2, given
        assert "--route" in err
        assert why in err


def test_a_table_and_what_the_cache_did(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The dearest first, a total, the cache in a line; what has no name is a dash."""
    code, out, err = said(capsys, "--data", data, "--by", "user,step")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:4] == ["user", "step", "cost", "share"]
    assert {tuple(line[:2]) for line in lines[1:5]} == {
        ("-", "plan"),
        ("-", "answer"),
        ("ann", "plan"),
        ("ann", "answer"),
    }
    (total,) = [line for line in lines if line[:1] == ["(total)"]]
    assert total[1:4] == [f"${format_usd(4 * A_CALL)}", "100.0", "%"]
    saved, extra = format_usd(4 * 50_000 * 2_700), format_usd(4 * 2_000 * 750)
    assert f"cache: reads saved ${saved}, writes and refreshes cost ${extra} more" in out


def test_what_if_is_said_with_what_it_leaves_out(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The sum, the difference, and that another model counts otherwise."""
    code, out, _ = said(capsys, "--data", data, "--on-model", "anthropic:claude-haiku-4-5", "--without-cache")
    assert code == 0
    instead = 4 * (53_000 * 1_000 + 100 * 5_000)
    assert (
        f"what if: ${format_usd(instead)} in place of ${format_usd(4 * A_CALL)} (+${format_usd(instead - 4 * A_CALL)})"
        in out
    )
    assert "another number of tokens" in out
    halved = said(capsys, "--data", data, "--batch")[1]
    assert (
        f"what if: ${format_usd(2 * A_CALL)} in place of ${format_usd(4 * A_CALL)} (-${format_usd(2 * A_CALL)})"
        in halved
    )


def test_json_has_all_of_it(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every tenant's for an operator; so many groups and the rest."""
    _, out, _ = said(capsys, "--data", data, "--all-tenants", "--by", "tenant", "--top", "1", "-o", "json")
    report = json.loads(out)
    assert report["groups"][0]["key"] == {"tenant": "default"}
    assert (report["total"]["usd"], report["rest"]["usd"]) == (format_usd(6 * A_CALL), format_usd(2 * A_CALL))
    assert (report["more_groups"], report["looked_at"], report["total"]["runs"]) == (1, 3, 3)
    _, out, _ = said(capsys, "--data", data, "--all-tenants", "--by", "tenant", "--top", "1")
    assert "(1 more)" in out


def test_days_are_read_in_order() -> None:
    """Whatever each cost; other groups stand as they came, the dearest first."""
    keys = [("b", "2026-11-02"), ("a", "2026-11-03"), ("b", "2026-11-01")]
    days = [{"key": {"agent": agent, "day": day}} for agent, day in keys]
    assert [tuple(each["key"].values()) for each in in_order(days, ["agent", "day"])] == [keys[1], keys[2], keys[0]]
    users = [{"key": {"user": name}} for name in "cab"]
    assert in_order(users, ["user"]) == users


def test_nothing_was_spent(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No table, and a word on stderr."""
    code, out, err = said(capsys, "--data", data, "--user", "nobody")
    assert (code, out, err) == (0, "", "no run cost anything in that time\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--by", "planet"), "--by: 'planet' is not one or two of: agent, model"),
        (("--since", "yesterday"), "--since: 'yesterday' is not a day"),
        (("--on-model", "gpt-5"), "--on-model: 'gpt-5' is not of the form provider:model"),
        (("--on-model", "openai:none"), "--on-model: no price is known for 'openai:none'"),
        (("--since", "1h", "--until", "2h"), "--until: '2h' is not after since"),
        (("--all-tenants", "--tenant", "acme"), "--all-tenants: goes with --data alone"),
        (("--top", "0"), "--top"),
    ],
)
def test_what_cannot_be_asked(
    data: str, arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option is named; the exit code is that of usage."""
    code, out, err = said(capsys, "--data", data, *arguments)
    assert (code, out) == (2, "")
    assert says in err


def test_a_server_says_the_same(served: Served) -> None:
    """Over HTTP: what it answers, and how it refuses."""
    served.cli.call("run", "support", "hello", "--url", served.url)
    report = served.cli.json("costs", "--url", served.url, "--by", "agent,model", "--without-cache", "--since", "1h")
    assert report["groups"][0]["key"] == {"agent": "support", "model": "anthropic:claude-sonnet-4-5"}
    assert report["what_if"]["without_cache"] is True
    assert "agent" in served.cli.call("costs", "--url", served.url).stdout
    for arguments, says in (
        (("--by", "planet"), "--by: 'planet' is not"),
        (("--all-tenants",), "--all-tenants: goes with --data alone"),
    ):
        refused = served.cli.call("costs", "--url", served.url, *arguments)
        assert refused.returncode == 2
        assert says in refused.stderr
