"""`stanchion tools`: what stands in every prompt, and what a model finds among the rest."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def searching(cli: Cli) -> Cli:
    """An agent that shows one tool of two."""
    file = cli.directory / "agent.py"
    text = file.read_text().replace("tools=[", 'search=ToolSearch(("lookup_order",)), tools=[')
    file.write_text("from stanchion.catalogue import ToolSearch\n" + text)
    return cli


def test_ls(searching: Cli) -> None:
    """Each with its tokens, and the sums."""
    done = searching.call("tools", "ls", "agent.py")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [(row[0], row[4]) for row in rows] == [
        ("lookup_order", "yes"), ("refund", "-"), ("read_result", "yes"), ("find_tools", "yes"), ("call_tool", "yes"),
    ]  # fmt: skip
    listed = searching.json("tools", "ls", "agent.py")
    shown = sum(one["tokens"] for one in listed if one["shown"])
    assert f"shown in every prompt: 4, about {shown} tokens; to be found: 1, about" in done.stderr
    assert [one["effect"] for one in listed if one["name"] == "refund"] == ["irreversible"]


def test_find_says_what_the_model_reads(searching: Cli) -> None:
    """The schema of what is found, and that what is shown is there already."""
    done = searching.call("tools", "find", "agent.py", "give the money of an order back")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('{"name":"refund","description":"Refund an order.')
    assert "You have these before you already: lookup_order." in done.stdout
    assert searching.json("tools", "find", "agent.py", "xyzzy")["text"].startswith("No tool is described")


def test_find_needs_an_agent_that_searches(cli: Cli) -> None:
    """It says what to add."""
    done = cli.call("tools", "find", "agent.py", "refund")
    assert done.returncode != 0
    assert "no agent there searches its tools; give it search=ToolSearch(shown=(..))" in done.stderr
    assert cli.call("tools", "find", "nothing.py", "refund").returncode != 0
