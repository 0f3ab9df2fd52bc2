"""What busts a cache is found in the text of an agent's file, and by loading it twice; what does not is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from stanchion.core.errors import ConfigError
from stanchion.runtime.linting import differs, lint

HEAD = "import time, random, uuid, os\nfrom datetime import datetime\nfrom stanchion import Agent, tool\n"


@pytest.mark.parametrize(
    ("code", "rule", "line"),
    [
        ('Agent(name="a", identity=f"It is {datetime.now()}.", model="m")', "changes", 4),
        ('NOW = time.time()\nAgent(name="a", identity="Now: %s" % NOW, model="m")', "changes", 4),
        ('TODAY = datetime.today().isoformat()\nTEXT = f"On {TODAY}"\nAgent(name="a", identity=TEXT, model="m")', "changes", 4),
        ('Agent(name="a", identity="Run " + str(uuid.uuid4()), model="m")', "changes", 4),
        ('Agent(name="a", identity=f"{random.choice(x)}", model="m")', "changes", 4),
        ('Agent(name="a", identity=f"{id(x)}", model="m")', "changes", 4),
        ('Agent(name="a", identity="x", tools=list({f, g}), model="m")', "order", 4),
        ('TOOLS = set(all_tools)\nAgent(name="a", tools=[*TOOLS], model="m")', "order", 4),
        ('Agent(name="a", identity=", ".join(os.listdir(".")), model="m")', "order", 4),
        ('def make(user_name):\n    return Agent(name="a", identity=f"You help {user_name}.", model="m")', "personal", 5),
    ],
)  # fmt: skip
def test_what_busts_the_cache_is_found(code: str, rule: str, line: int) -> None:
    """With its line, and what to do instead."""
    found = lint(HEAD + code)
    assert [(one.rule, one.line) for one in found] == [(rule, line)]
    assert found[0].fix


@pytest.mark.parametrize(
    "code",
    [
        'Agent(name="a", identity="You help users of a shop, any time.", tools=[f, g], model="m")',
        'Agent(name="a", identity="x", tools=sorted({f, g}, key=name), model="m")',
        'started = time.time()\nAgent(name="a", identity="x", model="m")',
        'Agent(name="a", identity=record.id(), model="m")',
        "def f():\n    return datetime.now()",
        'USERS = "users of a shop"\nAgent(name="a", identity=f"You help {USERS}", model="m")',
    ],
)
def test_what_does_not_is_left_alone(code: str) -> None:
    """A clock elsewhere, an order that is made, a word that only sounds like a person."""
    assert lint(HEAD + code) == []


def test_what_is_no_python_is_named() -> None:
    """With its line."""
    with pytest.raises(ConfigError, match=r"agent\.py:2"):
        lint("x = 1\ny = (\n")


def test_two_loads_are_compared(tmp_path: Path) -> None:
    """What only shows when the file runs: an order by the hash seed; and a file that is the same twice."""
    body = "from stanchion import Agent\nwords = {'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}\n"
    bad = tmp_path / "bad.py"
    bad.write_text(body + 'x = Agent(name="a", identity=" ".join(words), model="anthropic:claude-sonnet-4-6")\n')
    assert "a: identity" in differs(str(bad))
    good = tmp_path / "good.py"
    good.write_text(
        body + 'x = Agent(name="a", identity=" ".join(sorted(words)), model="anthropic:claude-sonnet-4-6")\n'
    )
    assert differs(str(good)) == ""
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no')\n")
    with pytest.raises(ConfigError, match="no"):
        differs(str(broken))
