"""`stanchion skills`: what there is, what is wrong with it, and what the model reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

GOOD = """\
---
name: refunds
description: Refund an order.
trigger: a customer wants money back
version: "2"
tools: [refund]
restrictions:
  - {tool: refund, most: {cents: 5000}, ask: true}
model: opus
---
Ask for the order first.
"""


@pytest.fixture
def folder(cli: Cli) -> Path:
    """A folder of skills beside an agent that has them."""
    for name, text in (("refunds", GOOD), ("zoo", "---\nname: zoo\ndescription: Animals.\n---\nBe kind.")):
        (cli.directory / "skills" / name).mkdir(parents=True)
        (cli.directory / "skills" / name / "SKILL.md").write_text(text)
    file = cli.directory / "agent.py"
    file.write_text(file.read_text().replace("tools=[", 'skills=["skills"], tools=['))
    return cli.directory / "skills"


def test_ls(cli: Cli, folder: Path) -> None:
    """Of an agent, and of a folder: the sum is about what each prompt grows by."""
    done = cli.call("skills", "ls", "agent.py")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [["refunds", "2"], ["zoo", "-"]]
    assert "about 63 tokens in every prompt, about 46 more if all are opened (estimates)" in done.stderr
    listed = cli.json("skills", "ls", "skills")
    assert [(one["name"], one["agent"], one["tools"], len(one["rules"])) for one in listed] == [
        ("refunds", "", ["refund"], 1),
        ("zoo", "", [], 0),
    ]


def test_check(cli: Cli, folder: Path) -> None:
    """What is doubtful is warned of; what is wrong, by itself or for an agent, fails the command and is all told at once."""
    done = cli.call("skills", "check", "agent.py")
    assert (done.returncode, done.stdout) == (0, "")
    assert "SKILL.md:9: 'model' means nothing here and is left aside" in done.stderr
    assert "in order: 2; rules that are enforced: 1; problems: 0" in done.stderr
    (folder / "bad").mkdir()
    (folder / "bad" / "SKILL.md").write_text("---\nname: Bad\n---\nx")
    (folder / "zoo" / "SKILL.md").write_text("---\nname: zoo\ndescription: d\ntools: [feed]\n---\nx")
    assert cli.call("skills", "check", "skills/zoo").returncode == 0
    bad = cli.call(
        "skills", "check", "skills", "nowhere", "--agent", "agent.py:gone", "--agent", "other.py", "-o", "json"
    )
    assert bad.returncode == 1
    problems = json.loads(bad.stdout)["problems"]
    assert [word in problem for word, problem in zip(
        ("bad/SKILL.md:2: name", "no file other.py", "bad/SKILL.md:2: name", "there is no nowhere"), problems, strict=True
    )] == [True] * 4, problems  # fmt: skip
    (folder / "bad" / "SKILL.md").write_text("---\nname: bad\ndescription: d\n---\nx")
    plain = Path(cli.directory / "plain.py")
    plain.write_text((cli.directory / "agent.py").read_text().replace('skills=["skills"], ', ""))
    held = cli.call("skills", "check", "skills", "--agent", "plain.py")
    assert held.returncode == 1
    assert "zoo/SKILL.md: agent 'support': skill 'zoo': tools: the agent has no tool 'feed'" in held.stdout


def test_show(cli: Cli, folder: Path) -> None:
    """The line in every prompt, the rules, and the text as the model reads it."""
    done = cli.call("skills", "show", "agent.py", "refunds")
    assert done.returncode == 0, done.stderr
    assert "enforced: a call of refund must have cents at most 5000; any other asks a person" in done.stdout
    assert "[skill refunds 2]\nAsk for the order first.\n" in done.stdout
    assert [one["name"] for one in cli.json("skills", "show", "skills")] == ["refunds", "zoo"]
    assert cli.json("skills", "show", "skills", "zoo")["text"] == "[skill zoo]\nBe kind."
    gone = cli.call("skills", "show", "skills", "cats")
    assert gone.returncode == 2
    assert "there is no skill 'cats'; there are: refunds, zoo" in gone.stderr


def test_a_run_opens_a_skill(cli: Cli, folder: Path) -> None:
    """From the terminal, with a model that asks for it; the answer says what stood in it."""
    rules = [
        {"when": {"user": "go"}, "reply": {"calls": [{"name": "use_skill", "arguments": {"name": "zoo"}}]}},
        {"when": {"contains": "Be kind."}, "reply": {"text": "I am kind."}},
    ]
    (cli.directory / "sim.json").write_text(json.dumps({"rules": rules, "default": {"text": "no"}}))
    done = cli.run("run", "agent.py", "go", "--simulated", "--sim-script", "sim.json")
    assert done.returncode == 0, done.stderr
    assert "I am kind." in done.stdout
