"""`stanchion decide`, `grants` and `keys` against a server: what a reviewer types, and what he reads."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from stanchion.cli import main
from stanchion.core import event as ev
from stanchion.testing.model import call
from tests.server.serving import served
from tests.server.test_approvals import EVIL, OTHER, mailer, plays, waiting
from tests.server.test_attacks import terminal


async def test_a_step_is_shown_and_decided_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a decision it shows each call, why not first; --all decides on all of them; what was allowed is listed and revoked."""
    model = plays(call("inbox"), [call("send", to=EVIL), call("pay", to=OTHER, cents=900)])
    async with served(tmp_path, model, agents=[mailer()]) as server:
        started = await server.start(input="Read my mail")
        run, where = started["run"], ("--url", server.url)
        asks = await waiting(server, run)
        screen = (await terminal(capsys, "decide", run, *where)).splitlines()
        assert screen[0].startswith("send waits for approval (call ")
        first = " ".join(" ".join(screen[1:3]).split())  # a line may be broken: a terminal is as wide as it is
        assert first.startswith(f"why not '{EVIL}' (to) was not said by the user; it stands in what inbox")
        assert [line for line in screen if line.startswith("pay waits for approval")]
        one = await terminal(capsys, "decide", run, asks[1]["call"], *where)
        assert one.startswith("pay waits for approval")
        assert "send waits" not in one
        shown = json.loads(await terminal(capsys, "decide", run, "-o", "json", *where))
        assert [ask["why"] for ask in shown] == [ask["why"] for ask in asks]
        said = await terminal(
            capsys, "decide", run, "--all", "approve", "--allow", "session", "--by", "ann", "-o", "json", *where
        )
        assert [each["call"] for each in json.loads(said)] == [ask["call"] for ask in asks]
        await server.until(run, "ended")
        listed = json.loads(await terminal(capsys, "grants", "ls", started["session"], "-o", "json", *where))
        assert sorted((grant["tools"][0], grant["value"]) for grant in listed) == [
            ("pay", "900"),
            ("pay", OTHER),
            ("send", EVIL),
        ]
        assert EVIL in await terminal(capsys, "grants", "ls", started["session"], *where)
        ids = [grant["id"] for grant in listed]
        await terminal(capsys, "grants", "revoke", started["session"], *ids, *where)
        assert json.loads(await terminal(capsys, "grants", "ls", started["session"], "-o", "json", *where)) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--all", "edit", "--arguments", "{}"), "one call"),
        (("1.0", "approve", "--all"), "CALL 1.0"),
        (("--all", "approve", "--revision", "0"), "--revision"),
        (("reject", "--allow", "session"), "only `approve`"),
    ],
)
def test_options_that_do_not_go_together(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They are refused before anything is asked."""
    assert main.call(["decide", "run_1", *words, "--url", "http://127.0.0.1:9"]) == 2
    assert said in capsys.readouterr().err


async def test_a_key_is_limited_and_a_run_narrowed_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`keys add --may-approve` limits who decides; `run --grant --task` what a run may do; a misspelt grant is refused."""
    model = plays([call("pay", to=EVIL, cents=3), call("inbox")])
    data = str(tmp_path / "test.db")
    async with served(tmp_path, model, agents=[mailer()]) as server:
        run = (await server.start())["run"]
        [ask] = await waiting(server, run)
        bad = await asyncio.to_thread(
            main.call, ["keys", "add", "bob", "--may-approve", '[{"tool": "pay"}]', "--data", data]
        )
        assert (bad, "may_approve" in capsys.readouterr().err) == (2, True)
        grants = '[{"tools": ["send"]}]'
        key = (await terminal(capsys, "keys", "add", "bob", "--may-approve", grants, "--data", data)).strip()
        [row] = json.loads(await terminal(capsys, "keys", "ls", "-o", "json", "--data", data))
        assert json.loads(row["may_approve"]) == [{"tools": ["send"]}]
        where = ["--url", server.url, "--api-key", key]
        code = await asyncio.to_thread(main.call, ["decide", run, "approve", *where])
        assert (code, "this key may not approve" in capsys.readouterr().err) == (2, True)
        words = [
            "run",
            "support",
            "Hi",
            "--task",
            "triage",
            "--grant",
            '{"tools": ["inbox"]}',
            "--no-ask",
            *where,
            "-o",
            "json",
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "stanchion.cli", *words, stdout=asyncio.subprocess.PIPE, cwd=tmp_path
        )
        out, _ = await process.communicate()
        view = json.loads(out)
        assert (view["outcome"], view["done"], view["waiting"]) == ("done", [], [])
        first = (await server.runtime.store.read("default", view["run"]))[0].event
        assert isinstance(first, ev.RunStarted)
        assert (first.task, first.narrowed) == ("triage", True)
        assert ask["why"].startswith(f"'{EVIL}' (to)")
