"""`stanchion policy`: policies checked, tried on cases, and calls explained, from a data file and from a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import SIMULATED, Cli, start_server

STOP = """@id("base") permit(principal, action, resource);

@id("dear") @reason("above 1,000 cents a person in the office refunds")
forbid(principal, action == Action::"refund", resource)
    when { context.arguments.cents > 1000 };
"""
CALLS = [
    {"name": "lookup_order", "arguments": {"order_id": "A-17"}},
    {"name": "refund", "arguments": {"order_id": "A-17", "cents": 1250}},
]
SCRIPT = {"rules": [{"when": {"user": "refund"}, "reply": {"calls": CALLS}}], "default": {"text": "Done."}}
CASES: list[dict[str, Any]] = [
    {"tool": "refund", "arguments": {"order_id": "A-17", "cents": 900}, "expect": "allow", "name": "small"},
    {"tool": "refund", "arguments": {"order_id": "A-17", "cents": 1250}, "expect": "deny", "rule": "dear"},
    {"tool": "lookup_order", "arguments": {"order_id": "A-17"}, "expect": "allow"},
]
CASES_YAML = """
- tool: send
  arguments: {to: ann@ours.example, copies: 2, rate: 1.5, tags: [x], more: {deep: true}, none: null}
  context:
    user: ann
    tier: irreversible
    untrusted: true
    secrecy: [internal]
    destinations: [{path: to, kind: email, value: ann@ours.example, ground: user}]
    granted: [{kind: email, value: ann@ours.example}]
    now_ms: 5
  expect: allow
- {tool: send, context: {user: zoe}, expect: ask}
"""
CASES_RULES = """permit(principal == User::"default/ann", action in Action::"tier:irreversible", resource) when {
    context.domains == ["ours.example"] && context.untrusted && context.secrecy == ["internal"] && context.now_ms == 5
    && context.arguments.copies == 2 && context.arguments.more.deep && context.arguments.tags.contains("x")
    && context.arguments.rate == decimal("1.5") && !(context.arguments has none) };
@ask("who is that?") permit(principal == User::"default/zoe", action, resource);
"""


@pytest.fixture
def folder(cli: Cli) -> Path:
    """A folder of policies beside the agent."""
    (cli.directory / "policies").mkdir()
    (cli.directory / "policies" / "main.cedar").write_text(STOP)
    (cli.directory / "sim.json").write_text(json.dumps(SCRIPT))
    return cli.directory


def test_check(cli: Cli, folder: Path) -> None:
    """What is in order is listed; what is not is said with its line, and the command fails."""
    done = cli.call("policy", "check", "policies", "--agent", "agent.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 policies are in order: base, dear" in done.stdout
    said = cli.json("policy", "check", "policies/main.cedar", "--agent", "agent.py")
    assert (said["policies"], said["agents"], len(said["digest"])) == (["base", "dear"], ["support"], 32)
    (folder / "policies" / "worse.cedar").write_text('\npermit(principal, action == Action::"refnd", resource);')
    bad = cli.call("policy", "check", "policies", "--agent", "agent.py")
    assert bad.returncode == 2
    assert "worse.cedar:2: unrecognized action" in bad.stderr
    unheld = cli.call("policy", "check", "policies")
    assert unheld.returncode == 0
    assert "--agent" in unheld.stderr


def test_test(cli: Cli, folder: Path) -> None:
    """Cases as JSON; one that is not as expected fails the command and says what was said instead."""
    (folder / "cases.json").write_text(json.dumps(CASES))
    done = cli.call("policy", "test", "policies", "--cases", "cases.json", "--agent", "agent.py")
    assert (done.returncode, done.stderr) == (0, "3 of 3 as expected\n"), done.stdout + done.stderr
    (folder / "cases.json").write_text(json.dumps([*CASES, CASES[1] | {"expect": "allow"}]))
    wrong = cli.call("policy", "test", "policies", "--cases", "cases.json", "--agent", "agent.py")
    assert (wrong.returncode, wrong.stderr) == (1, "3 of 4 as expected\n")
    assert "WRONG  case 4" in wrong.stdout
    listed = json.loads(
        cli.call("policy", "test", "policies", "--cases", "cases.json", "--agent", "agent.py", "-o", "json").stdout
    )
    assert [(one["ok"], one["action"], one["rules"]) for one in listed[2:]] == [
        (True, "allow", ["base"]),
        (False, "deny", ["dear"]),
    ]


def test_cases_without_an_agent(cli: Cli) -> None:
    """As YAML, with all that a context may say."""
    (cli.directory / "p.cedar").write_text(CASES_RULES)
    (cli.directory / "cases.yaml").write_text(CASES_YAML)
    done = cli.call("policy", "test", "p.cedar", "--cases", "cases.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("cases", "says"),
    [
        ("[{]", "cases"),
        ('[{"tool": "refund"}]', "expect"),
        ('[{"tool": "refund", "expect": "maybe"}]', "maybe"),
        ('[{"tool": "refund", "expect": "ask", "argument": {}}]', "argument"),
        ('[{"tool": "refnd", "expect": "ask"}]', "there are: lookup_order"),
    ],
)
def test_cases_that_cannot_be_used(cli: Cli, folder: Path, cases: str, says: str) -> None:
    """The message names what is wrong."""
    (folder / "cases.json").write_text(cases)
    done = cli.call("policy", "test", "policies", "--cases", "cases.json", "--agent", "agent.py")
    assert done.returncode == 2
    assert says in done.stderr
    assert cli.call("policy", "test", "policies", "--cases", "none.json").returncode == 2


def test_a_run_under_policies_is_explained(cli: Cli, folder: Path) -> None:
    """The values, then each rule and what it says, then what happened; the text names the place of each value."""
    done = cli.run("run", "agent.py", "refund A-17", "--policies", "policies", "-o", "json", *SIMULATED)
    run = json.loads(done.stdout)["run"]
    assert not (folder / "refunds.txt").exists()
    said = cli.json("policy", "explain", run)
    assert [(one["tool"], one["action"], one["rule"], one["replay"]) for one in said] == [
        ("lookup_order", "allow", "tier:read", "same"),
        ("refund", "deny", "policy:dear", "same"),
    ]
    shown = cli.call("policy", "explain", run, said[1]["call"]).stdout
    lines = shown.splitlines()
    assert lines[0] == f"{run} {said[1]['call']}: refund (irreversible) was denied by policy:dear"
    assert "a person in the office refunds" in lines[1]
    assert "deny  policy:dear" in shown
    assert "ask   approval:irreversible" in shown
    assert f"judged again under the policies {said[1]['policy']}, the verdict is the same" in shown
    missing = cli.call("policy", "explain", run, "99.0")
    assert missing.returncode == 2
    assert "there are: " in missing.stderr


def test_a_server_with_policies_explains(cli: Cli, folder: Path) -> None:
    """Over HTTP as from its file; the environment names the policies as the option does."""
    server = start_server(Cli(folder, {"STANCHION_POLICIES": "policies"}))
    try:
        view = json.loads(cli.call("run", "support", "refund A-17", "--url", server.url, "-o", "json").stdout)
        there = cli.json("policy", "explain", view["run"], "--url", server.url)
        assert [one["rule"] for one in there] == ["tier:read", "policy:dear"]
        assert cli.json("policy", "explain", view["run"]) == there
    finally:
        server.stop()


def test_policies_with_a_fault_serve_nothing(cli: Cli, folder: Path) -> None:
    """The server does not start without them, and says why; nor are they given to a server that runs."""
    (folder / "policies" / "main.cedar").write_text("permit(")
    done = cli.run("serve", "agent.py", "--port", "0", "--policies", "policies", *SIMULATED)
    assert done.returncode == 2
    assert "main.cedar:1" in done.stderr
    away = cli.call("run", "support", "hi", "--policies", "policies", "--url", "http://127.0.0.1:1")
    assert away.returncode == 2
    assert "--url" in away.stderr
