"""What busts a cache is found in the text of an agent's file, and by loading it twice; what does not is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from stanchion.core.errors import ConfigError
from stanchion.runtime.authoring.linting import lint, tried

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
        ('Agent(name="a", identity="x", limits=Limits(turns=61), model="m")', "long", 4),
        ('LIMITS = Limits(usd="1", turns=200)\nAgent(name="a", identity="x", limits=LIMITS, model="m")', "long", 5),
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
        'Agent(name="a", identity="x", limits=Limits(turns=60), model="m")',
        'Agent(name="a", identity="x", limits=Limits(turns=600), compaction=Compaction(), model="m")',
        'Agent(name="a", identity="x", limits=limits_of(x), model="m")',
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
    (found,) = tried(str(bad))
    assert found.rule == "differs"
    assert "a: identity" in found.text
    good = tmp_path / "good.py"
    good.write_text(
        body + 'x = Agent(name="a", identity=" ".join(sorted(words)), model="anthropic:claude-sonnet-4-6")\n'
    )
    assert tried(str(good)) == []
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no')\n")
    with pytest.raises(ConfigError, match="no"):
        tried(str(broken))


def many(count: int, search: str = "") -> str:
    """Write an agent with so many tools."""
    return (
        "from stanchion import Agent, tool\nfrom stanchion.catalogue import ToolSearch\n"
        "def made(n):\n"
        "    @tool(effect='read', name=f'look_{n}')\n"
        "    async def look(order: str) -> str:\n"
        '        """Look an order up."""\n'
        "        return order\n"
        "    return look\n"
        f"x = Agent(name='a', tools=[made(n) for n in range({count})], model='anthropic:claude-sonnet-4-6'{search})\n"
    )


def test_many_tools_are_said_with_their_tokens(tmp_path: Path) -> None:
    """The built-in one counts; not where the others are found, and not 40."""
    file = tmp_path / "agent.py"
    for count, search, said in (
        (39, "", False),
        (40, "", True),
        (60, ", search=ToolSearch(shown=('look_1',))", False),
    ):
        file.write_text(many(count, search))
        found = tried(str(file))
        assert [one.rule for one in found] == (["tools"] if said else [])
    file.write_text(many(40))
    (one,) = tried(str(file))
    assert one.text.startswith("a: 41 tools stand in every prompt, about ")
    assert 1_000 < int(one.text.split("about ")[1].split(" ")[0].replace(",", "")) < 3_000


def test_tools_that_are_written_out_are_counted() -> None:
    """In the text of the file, under a name as well; a `search` answers for them."""
    names = ", ".join(f"t{n}" for n in range(41))
    for code in (
        f"x = Agent(name='a', tools=[{names}], model='m')",
        f"T = [{names}]\nx = Agent(name='a', tools=T, model='m')",
    ):
        assert [one.rule for one in lint(code)] == ["tools"]
    assert lint(f"x = Agent(name='a', tools=[{names}], search=S, model='m')") == []
    assert lint(f"x = Agent(name='a', tools=[{names[5:]}], model='m')") == []
