"""Skills as files: what is read, what is refused with file and line, what is only warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stanchion import Agent, ConfigError, tool
from stanchion.core.bundle import USE_SKILL, digest_of
from stanchion.core.policy import Param
from stanchion.core.prices import load_prices
from stanchion.core.skill import Restriction, Skill
from stanchion.engine.bound import misfits
from stanchion.toolbox.skill import read_skill, read_skills

FULL = """\
---
name: refunds
description: >-
  Refund an order:
  how, and how much.
trigger: a customer wants money back
version: 1.10
license: MIT
compatibility: any
metadata: {author: desk, version: "9"}
tools: [refund, look]
restrictions:
  - {tool: refund, most: {cents: 5000}, least: {cents: 1}, among: {currency: [EUR, CHF]}, ask: true, quorum: 2, expires_s: 60}
  - tool: look
    never: true
evals:
  - cases.json
---

# Refunds

Ask for the order.\r
"""


def written(folder: Path, text: str, name: str = "refunds") -> Path:
    """Write a skill's file as it is given, byte by byte."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / name / "SKILL.md"
    path.write_bytes(text.encode())
    return path


def test_all_that_a_file_can_say(tmp_path: Path) -> None:
    """A version is a text as it is written, a folded description is one line, line ends are one byte."""
    path = written(tmp_path, FULL)
    (path.parent / "cases.json").write_text("[]")
    read = read_skill(path)
    among = Param("currency", among=("EUR", "CHF"))
    bounds = (Param("cents", most="5000"), Param("cents", least="1"), among)
    assert read.skill == Skill(
        name="refunds",
        description="Refund an order: how, and how much.",
        body="# Refunds\n\nAsk for the order.",
        trigger="a customer wants money back",
        version="1.10",
        tools=("refund", "look"),
        restrictions=(Restriction("refund", bounds, ask=True, expires_s=60.0, quorum=2), Restriction("look")),
    )
    assert (read.evals, read.warnings) == (("cases.json",), ())


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("---\nname: a-b1\ndescription: d\n---\nx", "x"),
        ("\ufeff---\r\nname: a-b1\r\ndescription: 'd'\r\n---\r\nx\r\ny\r\n", "x\ny"),
        ("---  \nname: a-b1 # why\ndescription: d\n--- \n\n---\nx: y\n---\n", "---\nx: y\n---"),
        ('---\n"name": "a-b1"\ndescription: "d"\nmetadata:\n---\nx', "x"),
    ],
)
def test_the_common_form_is_read(tmp_path: Path, text: str, body: str) -> None:
    """Name and description are enough; a mark of byte order, other line ends and rules in the body do no harm."""
    skill = read_skill(written(tmp_path, text, "a-b1")).skill
    assert (skill.name, skill.description, skill.body, skill.version) == ("a-b1", "d", body, "")


HEAD = "---\nname: refunds\ndescription: d\n"


def rule(text: str) -> str:
    """Write a file with one restriction, which stands on line 5."""
    return f"{HEAD}restrictions:\n  - {text}\n---\nx"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "must begin with front matter"),
        ("# Refunds\n", 1, "must begin with front matter"),
        ("---\nname: refunds\nx", 3, "has no end"),
        ("---\n---\nx", 2, "must be keys with values"),
        ("---\n- a\n---\nx", 2, "must be keys with values"),
        ("---\nname: refunds\ndescription: one: two\n---\nx", 3, "needs quotes around it"),
        ("---\nname: refunds\ndescription: `x`\n---\nx", 3, "needs quotes around it"),
        ("---\nname: [refunds\ndescription: d\n---\nx", 3, "this is no YAML"),
        ("---\nname: refunds\n\tdescription: d\n---\nx", 3, "this is no YAML"),
        ("---\nname: refunds\nname: other\ndescription: d\n---\nx", 3, "'name' is said twice"),
        ("---\nname: refunds\ndescription: !!python/name:os.system\n---\nx", 3, "the tag 'tag:yaml.org,2002:python"),
        ("---\nname: refunds\ndescription: !run d\n---\nx", 3, "the tag '!run'"),
        ("---\nname: &n refunds\ndescription: *n\n---\nx", 3, "aliases"),
        (f"---\nname: refunds\nx: {'[' * 40}{']' * 40}\n---\nx", 3, "nested more than 8 deep"),
        ("---\n? [a]\n: b\n---\nx", 2, "a key must be a plain word"),
        ("---\ndescription: d\n---\nx", 2, "name is missing"),
        ("---\nname:\ndescription: d\n---\nx", 2, "name is missing"),
        ("---\nname: Refunds\ndescription: d\n---\nx", 2, "name: 'Refunds' must be"),
        ("---\nname: a--b\ndescription: d\n---\nx", 2, "name: 'a--b' must be"),
        (f"---\nname: {'a' * 65}\ndescription: d\n---\nx", 2, "must be 1 to 64"),
        ("---\nname: refunds\n---\nx", 2, "description is missing"),
        (f"---\nname: refunds\ndescription: {'d' * 4097}\n---\nx", 3, "4,097 characters"),
        ("---\nname: refunds\ndescription: yes\n---\nx", 3, "need quotes to be texts"),
        ("---\nname: refunds\ndescription: [d]\n---\nx", 3, "must be a text, not a list"),
        (f"{HEAD}---\n \n", 5, "there is no text below"),
        (f"{HEAD}---\n{'x' * 100_001}", 5, "100,001 characters"),
        (f"{HEAD}tools: {{a: b}}\n---\nx", 4, "tools must be a list"),
        (f"{HEAD}tools:\n  - a\n  - [b]\n---\nx", 6, "tools[1] must be a text, not a list"),
        (f"{HEAD}evals:\n  - gone.json\n---\nx", 5, "evals: there is no"),
        (f"{HEAD}restrictions: never refund\n---\nx", 4, "belongs into the text below"),
        (rule("be kind"), 5, "prose belongs into the text below"),
        (rule("{most: {cents: 1}}"), 5, "must name a tool"),
        (rule("{tool: refund}"), 5, "says nothing"),
        (rule("{tool: refund, most: 5}"), 5, "must name arguments"),
        (rule("{tool: refund, most: {}}"), 5, "must name arguments"),
        (rule("{tool: refund, most: {cents: lots}}"), 5, "restrictions[0].most.cents must be a number, not 'lots'"),
        (rule("{tool: refund, least: {cents: }}"), 5, "restrictions[0].least.cents must be a number, not nothing"),
        (rule("{tool: refund, among: {currency: EUR}}"), 5, "restrictions[0].among.currency must be a list"),
        (rule("{tool: refund, never: maybe}"), 5, "restrictions[0].never must be true or false"),
        (rule("{tool: refund, never: true, ask: true}"), 5, "forbids each call"),
        (rule("{tool: refund, at_most: {cents: 1}}"), 5, "restrictions[0].at_most is unknown"),
        (rule("{tool: refund, never: true, quorum: 2}"), 5, "only with ask: true"),
        (rule("{tool: refund, ask: true, expires_s: soon}"), 5, "restrictions[0].expires_s must be a number above 0"),
        (rule("{tool: refund, ask: true, quorum: -1}"), 5, "restrictions[0].quorum must be a number above 0"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    """Whatever it is: no traceback, and no guess."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_skill(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert said in str(caught.value)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, a character that YAML does not have, a file that is too large, a folder that is none."""
    path = written(tmp_path, "---\nname: refunds\n")
    path.write_bytes(b"---\nname: \xff\n---\nx")
    with pytest.raises(ConfigError, match=r"SKILL\.md:2: byte 10 is not UTF-8"):
        read_skill(path)
    path.write_text("---\nname: \x07\n---\nx")
    with pytest.raises(ConfigError, match="the front matter is no YAML"):
        read_skill(path)
    path.write_text("---\n" + "x" * 300_000)
    with pytest.raises(ConfigError, match="at most 262,144 are read"):
        read_skill(path)
    with pytest.raises(ConfigError, match="there is no nowhere in"):
        read_skills(["nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"has no SKILL\.md, and no folder in it has one"):
        read_skills([tmp_path / "empty"])
    with pytest.raises(ConfigError, match="is no path"):
        read_skills([7])


def test_what_means_nothing_here_is_warned_of(tmp_path: Path) -> None:
    """Keys of others, a folder of another name, files that the model is not shown."""
    head = HEAD.replace("description: d", f"description: {'d' * 1025}")
    path = written(tmp_path, f"{head}model: opus\nallowed-tools: Read\n---\n{'x' * 20_001}", "other")
    (path.parent / "LICENSE.txt").write_text("MIT")
    (path.parent / "references").mkdir()
    (path.parent / "references" / "a.md").write_text("a")
    warnings = [warning.removeprefix(f"{path}:") for warning in read_skill(path).warnings]
    assert [(warning.split(":")[0], word in warning) for warning, word in zip(
        warnings, ("'model'", "allowed-tools", "'other'", "1,025", "20,001", "references/a.md"), strict=True
    )] == [("4", True), ("5", True), ("2", True), ("3", True), ("7", True), ("1", True)]  # fmt: skip


def test_folders_files_and_data_are_put_in_one_order(tmp_path: Path) -> None:
    """By name, however they are given: the prompt must begin with the same bytes."""
    one = written(tmp_path / "all", "---\nname: zoo\ndescription: d\n---\nx", "zoo")
    written(tmp_path / "all", "---\nname: ant\ndescription: d\n---\nx", "ant")
    data = Skill("mole", "d", "x")
    orders = [[tmp_path / "all", data], [data, tmp_path / "all" / "ant", str(one)]]
    assert [[read.skill.name for read in read_skills(order)] for order in orders] == [["ant", "mole", "zoo"]] * 2
    with pytest.raises(ConfigError, match=r"two are named 'zoo': .*zoo/SKILL\.md and .*zoo/SKILL\.md"):
        read_skills([tmp_path / "all", one])
    with pytest.raises(ConfigError, match="needs a name"):
        read_skills([Skill("no\nname", "d", "x")])


# --- an agent with skills ------------------------------------------------------------------------------------------------


@tool(effect="write")
def refund(order: str, cents: int, parts: list[int]) -> str:
    """Refund an order."""
    return f"{order} {cents} {parts}"


def agent(*skills: Any, **more: Any) -> Agent:
    """Make an agent with skills."""
    return Agent(name="desk", skills=skills, model="anthropic:claude-sonnet-4-6", **{"tools": [refund], **more})


def bundled(made: Agent) -> Any:
    """Make its bundle."""
    return made.bundle(made.registry(), load_prices(), "2026-01-01")


def test_the_bundle_has_the_skills_and_the_tool() -> None:
    """One without skills is as it was; the digest covers every byte of a body."""
    assert USE_SKILL not in [spec.name for spec in bundled(agent()).tools]
    one, other = (bundled(agent(Skill("a", "d", body))) for body in ("x", "y"))
    assert [spec.name for spec in one.tools] == ["refund", "read_result", USE_SKILL]
    assert [skill.body for skill in one.skills] == ["x"]
    assert digest_of(one) != digest_of(other)
    assert [spec.name for spec in bundled(agent(Skill("a", "d", "x"), tools=[])).tools] == ["read_result", USE_SKILL]


def test_a_run_goes_on_when_a_skill_changed_or_came() -> None:
    """The tool's schema names no skill. That all are gone is another thing: calls of the tool would mean nothing."""
    one, other, none = (bundled(agent(*skills)) for skills in ([Skill("a", "d", "x")], [Skill("b", "d", "y")], []))
    assert (misfits(one, other), misfits(none, one)) == ("", "")
    assert misfits(one, none) == "the tool 'use_skill' is gone"


@pytest.mark.parametrize(
    ("skill", "said"),
    [
        (Skill("a", "d", "x", tools=("refnd",)), "tools: the agent has no tool 'refnd'; its tools are: refund"),
        (Skill("a", "d", "x", restrictions=(Restriction("pay"),)), r"restrictions\[0\]: the agent has no tool 'pay'"),
        (Skill("a", "d", "x", restrictions=(Restriction(USE_SKILL),)), "the agent has no tool 'use_skill'"),
        (
            Skill("a", "d", "x", restrictions=(Restriction("refund", (Param("usd", most="1"),)),)),
            "refund has no argument 'usd'; it has: order, cents, parts",
        ),
        (
            Skill("a", "d", "x", restrictions=(Restriction("refund", (Param("parts", most="1"),)),)),
            r"'parts' of refund holds more than one value; name one in it, as in parts\.\*",
        ),
    ],
)
def test_a_skill_that_does_not_fit_the_agent_is_refused(skill: Skill, said: str) -> None:
    """Where it is composed, naming agent and skill: a limit on a tool that is misspelt would hold nothing."""
    with pytest.raises(ConfigError, match=f"agent 'desk': skill 'a': .*{said}"):
        bundled(agent(skill))


def test_a_relative_path_begins_beside_the_agent_s_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the process was started; read once, so that a copy of the agent has the same skills."""
    from dataclasses import replace

    from stanchion.runtime.opening.files import load_agents

    path = written(tmp_path / "app" / "skills", f"{HEAD}---\nx")
    (tmp_path / "app" / "agent.py").write_text(
        "from stanchion import Agent\ndesk = Agent(name='desk', skills=['skills/refunds'], model='anthropic:claude-sonnet-4-6')\n"
    )
    monkeypatch.chdir(tmp_path)
    (loaded,) = load_agents("app/agent.py")
    path.write_text("gone")
    assert [read.skill.body for read in replace(loaded, identity="other").skill_files()] == ["x"]
    with pytest.raises(ConfigError, match=r"agent\.py:2: agent 'desk': .*SKILL\.md:1: "):
        load_agents("app/agent.py")


def test_skills_are_a_list() -> None:
    """A single path is said to be none."""
    with pytest.raises(ConfigError, match="skills must be a list"):
        Agent(name="a", skills="skills", model="anthropic:m")
