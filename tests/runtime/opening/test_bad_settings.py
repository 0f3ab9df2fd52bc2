"""Agents, settings and agent files that cannot be: each a clear error that names what to change, none a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stanchion import Agent, Approve, ConfigError, InputError, Limits, Model, Runtime, StanchionError, price_usd, tool
from stanchion.core.bundle import Timeouts
from stanchion.runtime import load_agents
from stanchion.testing import ScriptedModel

PRICE = price_usd(input="1", output="1")


@tool(effect="write")
def pay(cents: int) -> str:
    """Pay."""
    return f"paid {cents}"


def plain() -> str:
    return "no tool"


def untyped(settings: dict[str, Any]) -> Agent:
    return Agent(**({"name": "desk", "model": Model("openai:m", price=PRICE), "tools": [pay]} | settings))


AGENTS: list[tuple[dict[str, Any], str]] = [
    ({"name": "a b"}, "agent name 'a b': use 1 to 64 letters"),
    ({"name": ""}, "agent name '': use 1 to 64"),
    ({"name": 5}, "agent name 5: use"),
    ({"identity": None}, "agent 'desk': identity must be a string, not None"),
    ({"tools": pay}, "agent 'desk': tools must be a list"),
    ({"tools": "pay"}, "agent 'desk': tools must be a list, not 'pay'"),
    ({"tools": [plain]}, "tools: 'plain' is a plain function; say what it does to the world"),
    ({"tools": [pay, pay]}, "two tools are named 'pay'"),
    ({"model": "gpt-5"}, "model 'gpt-5' is not of the form provider:model"),
    ({"model": "nobody:m"}, "no provider 'nobody'"),
    ({"model": "openai:of-my-own"}, "the price of 'openai:of-my-own' is not known; give it"),
    ({"model": 5}, "agent 'desk': model must be provider:model, or Model"),
    ({"fallbacks": "openai:gpt-5"}, "agent 'desk': fallbacks must be a list"),
    ({"fallbacks": [5]}, "agent 'desk': fallbacks: 5 does not belong there"),
    ({"limits": "0.50"}, "agent 'desk': limits must be Limits"),
    ({"limits": Limits(usd="-1")}, "agent 'desk': limits.usd: '-1' is not an amount"),
    ({"approvals": Approve(tool="pay")}, "agent 'desk': approvals must be a list"),
    ({"approvals": [{"tool": "pay"}]}, "agent 'desk': approvals: {'tool': 'pay'} does not belong there"),
    ({"approvals": [Approve(tool="refund")]}, "it has no tool 'refund'"),
    ({"approvals": [Approve(tool="pay", above={"euros": 5})]}, "pay has no argument 'euros'"),
    ({"deps": [1]}, "agent 'desk': deps must be a dict"),
    ({"deps": {"db": 1}}, "deps: 'db' is not a class"),
    ({"output": plain}, "agent 'desk': output .* has no JSON schema"),
    ({"loop": 3}, "agent 'desk': loop must be LoopRules"),
    ({"tool_choice": "refund"}, "agent 'desk': tool_choice 'refund' is none of its tools"),
    ({"tool_choice": None}, "agent 'desk': tool_choice must be"),
    ({"parallel_tool_calls": "no"}, "agent 'desk': parallel_tool_calls must be True or False"),
]


@pytest.mark.parametrize(("settings", "text"), AGENTS, ids=[f"{next(iter(a))}{n}" for n, (a, _) in enumerate(AGENTS)])
async def test_agents(tmp_path: Path, settings: dict[str, Any], text: str) -> None:
    """An agent that cannot be run is refused where it is written, or at the latest where it is opened."""
    with pytest.raises(ConfigError, match=text):
        await Runtime.open(untyped(settings), data=tmp_path / "t.db", clients={"*": ScriptedModel([])})
    assert not (tmp_path / "t.db").exists()


LIMITS: list[tuple[dict[str, Any], str]] = [
    ({"usd": "lots"}, "limits.usd"),
    ({"usd": float("nan")}, "limits.usd"),
    ({"usd": "0"}, "limits.usd"),
    ({"turns": 0}, "limits.turns: must be above 0"),
    ({"turns": 2.5}, "limits.turns: must be a whole number"),
    ({"turns": True}, "limits.turns: must be a whole number"),
    ({"tool_calls": -1}, "limits.tool_calls: must be above 0"),
    ({"input_tokens": "many"}, "limits.input_tokens: must be a whole number"),
    ({"wall_s": "60"}, "limits.wall_s: must be a number"),
    ({"wall_s": 0}, "limits.wall_s: must be above 0"),
    ({"wall_s": float("inf")}, "limits.wall_s: must be seconds"),
    ({"warn_at": 1.5}, "limits.warn_at: must be above 0 and at most 1"),
    ({"warn_at": None}, "limits.warn_at: must be a number"),
    ({"budget_wait_s": -1}, "limits.budget_wait_s: must be seconds"),
]


@pytest.mark.parametrize(("settings", "text"), LIMITS, ids=[f"{next(iter(a))}{n}" for n, (a, _) in enumerate(LIMITS)])
def test_limits(settings: dict[str, Any], text: str) -> None:
    """A limit that is none is named."""
    with pytest.raises(InputError, match=text) as refused:
        Limits(**settings).caps()
    assert refused.value.field == text.partition(":")[0]


MODELS: list[tuple[dict[str, Any], str]] = [
    ({"name": 5}, "name must be a string"),
    ({"price": "cheap"}, "price must be made with price_usd"),
    ({"max_output_tokens": 0}, "max_output_tokens must be 1 or more"),
    ({"max_output_tokens": "4096"}, "max_output_tokens must be a whole number"),
    ({"context_tokens": 0}, "context_tokens must be 1 or more"),
    ({"temperature": "hot"}, "temperature must be a number"),
    ({"thinking_tokens": -5}, "thinking_tokens must be 0 or more"),
    ({"effort": 3}, "effort must be a word"),
    ({"options": [1]}, "options must be a dict"),
    ({"options": {"a": object()}}, "options must be JSON"),
    ({"timeouts": 30}, "timeouts must be Timeouts"),
    ({"timeouts": Timeouts(connect_s=0)}, r"timeouts\.connect_s must be above 0"),
    ({"retries": 0}, "retries must be 1 or more"),
    ({"retries": "3"}, "retries must be a whole number"),
]


@pytest.mark.parametrize(("settings", "text"), MODELS, ids=[f"{next(iter(a))}{n}" for n, (a, _) in enumerate(MODELS)])
def test_models(settings: dict[str, Any], text: str) -> None:
    """A model's setting that cannot be is named, with its model."""
    with pytest.raises(ConfigError, match=f"model .*: {text}"):
        Model(**({"name": "openai:m", "price": PRICE} | settings))


APPROVALS: list[tuple[dict[str, Any], str]] = [
    ({"tool": 5}, "tool must be the name of a tool"),
    ({"effect": "dangerous"}, "effect must be one of read, write, irreversible, destructive"),
    ({"above": 5000}, "above must be a dict"),
    ({"above": {"cents": "5000"}}, r"above\['cents'\] must be a number"),
    ({"expires_s": 0}, "expires_s must be above 0"),
    ({"expires_s": "day"}, "expires_s must be seconds"),
]


@pytest.mark.parametrize(("settings", "text"), APPROVALS)
def test_approvals(settings: dict[str, Any], text: str) -> None:
    """An approval rule that cannot be is named."""
    with pytest.raises(ConfigError, match=text):
        Approve(**settings)


GOOD = "from stanchion import Agent, Model, price_usd\nm = Model('openai:m', price=price_usd(input='1', output='1'))\n"
FILES: list[tuple[str, str, str]] = [
    ("empty", "", "has no agent; it needs a line like"),
    ("syntax", "x = 1\nif x\n    pass\n", r"syntax\.py:2: expected ':'"),
    ("import", "import stanchion\nimport no_such_module\n", r"import\.py:2: ModuleNotFoundError: .*no_such_module"),
    ("raises", "def f():\n    return 1 / 0\n\nf()\n", r"raises\.py:2: ZeroDivisionError: division by zero"),
    ("exits", "import sys\nsys.exit('bye')\n", r"exits\.py:2: SystemExit: bye"),
    ("setting", GOOD + "a = Agent(name='x y', model=m)\n", r"setting\.py:3: agent name 'x y': use 1 to 64"),
    (
        "limits",
        GOOD + "from stanchion import Limits\na = Agent(name='a', model=m, limits=Limits(turns=0))\n",
        r"limits\.py:4: agent 'a': limits.turns",
    ),
    ("twice", GOOD + "a = Agent(name='a', model=m)\nb = Agent(name='a', model=m)\n", "has two agents named 'a'"),
    ("bytes", "x = '\0'\n", "null bytes"),
    (
        "tool",
        "from stanchion import tool\n@tool(effect='maybe')\ndef f() -> str:\n    return ''\n",
        r"tool\.py:\d: .*effect",
    ),
]


@pytest.mark.parametrize(("name", "body", "text"), FILES, ids=[name for name, _, _ in FILES])
def test_agent_files(tmp_path: Path, name: str, body: str, text: str) -> None:
    """A file that gives no agent says where it went wrong."""
    (tmp_path / f"{name}.py").write_text(body)
    with pytest.raises(ConfigError, match=text):
        load_agents(str(tmp_path / f"{name}.py"))


def test_what_is_no_agent_file(tmp_path: Path) -> None:
    """A path that is no file, a folder, a module that is not there, an agent that is not in it."""
    (tmp_path / "two.py").write_text(GOOD + "a = Agent(name='a', model=m)\nb = Agent(name='bee', model=m)\n")
    for target, text in (
        (f"{tmp_path}/none.py", "there is no file"),
        (str(tmp_path), "is a folder"),
        ("no_such_module_at_all", "there is no module 'no_such_module_at_all'"),
        (f"{tmp_path}/two.py:c", "has no agent 'c'; its agents are: a, bee"),
    ):
        with pytest.raises(ConfigError, match=text):
            load_agents(target)
    assert [agent.name for agent in load_agents(f"{tmp_path}/two.py")] == ["a", "bee"]
    assert [agent.name for agent in load_agents(f"{tmp_path}/two.py:b")] == ["bee"]
    assert [agent.name for agent in load_agents(f"{tmp_path}/two.py:bee")] == ["bee"]


async def test_stores_that_cannot_be(tmp_path: Path) -> None:
    """A place that holds no store is named."""
    agent = untyped({})
    (tmp_path / "notes.txt").write_text("These are no runs. " * 100)
    places: list[tuple[Any, str]] = [
        ("mysql://host/db", "write a path, sqlite:///path or postgresql://"),
        ("sqlite://host", "write a path, sqlite:///path"),
        ("postgresql://127.0.0.1:1/db", r"127\.0\.0\.1:1/db cannot be reached"),
        ("", "data is empty"),
        (tmp_path / "notes.txt", r"notes\.txt"),
        (tmp_path, "."),
    ]
    for data, text in places:
        with pytest.raises(StanchionError, match=text):
            await Runtime.open(agent, data=data, clients={"*": ScriptedModel([])})
    with pytest.raises(ConfigError, match="needs a key: set OPENAI_API_KEY"):
        await Runtime.open(agent, data=tmp_path / "t.db", environment={})
    with pytest.raises(ConfigError, match=r"OPENAI_BASE_URL='ftp://x' is not an http\(s\) URL"):
        await Runtime.open(agent, data=tmp_path / "t.db", environment={"OPENAI_BASE_URL": "ftp://x"})
    with pytest.raises(ConfigError, match="two agents are named 'desk'"):
        await Runtime.open(agent, agent, data=tmp_path / "t.db", clients={"*": ScriptedModel([])})


async def test_where_a_store_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, a relative URL and an absolute URL."""
    monkeypatch.chdir(tmp_path)
    for data, file in (("a.db", "a.db"), ("sqlite:///b.db", "b.db"), (f"sqlite:///{tmp_path}/c.db", "c.db")):
        await (await Runtime.open(data=data, drive=False)).aclose()
        assert (tmp_path / file).exists()
