"""A skill: instructions for one kind of task, of which the model is shown a line, and the rest when it asks. Data, and what is said of it.

The body is the developer's text and stands in the bundle, so that the loop has it at hand. What of a skill can be enforced is no
prose but a `Restriction`: it holds for every call of the agent, whether the skill was opened or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from stanchion.core.message import Label
from stanchion.core.policy import Param

HEADING = (
    "You have skills: instructions of your operator for certain tasks. When a task fits one, call use_skill with its name and read it "
    "before you act. You need each one once."
)


class Restriction(msgspec.Struct, frozen=True, omit_defaults=True):
    """What calls of a tool must be. Without bounds it means each call of it."""

    tool: str
    params: tuple[Param, ...] = ()
    """What its arguments must be. One that a bound names and the call leaves out, or sets to null, is not within it."""
    ask: bool = False
    """What is not within the bounds waits for a person; without this it is denied."""
    expires_s: float = 0.0
    """After so long without an answer the call counts as rejected; 0: it waits for ever."""
    quorum: int = 0
    """How many people must say yes; 0: one."""


class Skill(msgspec.Struct, frozen=True, omit_defaults=True):
    """A skill, as a bundle has it."""

    name: str
    description: str
    body: str
    """Markdown: what to do, and examples."""
    trigger: str = ""
    """When it is to be used."""
    version: str = ""
    tools: tuple[str, ...] = ()
    """Tools that it speaks of."""
    restrictions: tuple[Restriction, ...] = ()


def digest_of_skill(skill: Skill) -> str:
    """Hash of a skill, as hex: 48 bits of SHA-256, for people to tell two versions apart."""
    return hashlib.sha256(msgspec.json.encode(skill, order="deterministic")).hexdigest()[:12]


def index_line(skill: Skill) -> str:
    """The line of a skill that stands in every prompt."""
    when = f" Use it when: {skill.trigger}" if skill.trigger else ""
    return f"- {skill.name}: {skill.description}{when}"


def index(skills: Iterable[Skill]) -> str:
    """What stands in every prompt of an agent with skills, or "" for one without: the same bytes for the same skills."""
    lines = [index_line(skill) for skill in skills]
    return "\n".join((HEADING, *lines)) if lines else ""


def disclosure(skill: Skill) -> str:
    """What the model reads of a skill that it opens: its body, and which of its limits are enforced."""
    head = f"[skill {skill.name}{f' {skill.version}' if skill.version else ''}]"
    rules = [f"- {said(rule)}" for rule in skill.restrictions]
    enforced = ("", "These limits are enforced, here and everywhere:", *rules) if rules else ()
    return "\n".join((head, skill.body, *enforced))


def said(rule: Restriction) -> str:
    """Say a restriction in words."""
    other = "asks a person" if rule.ask else "is refused"
    if not rule.params:
        return f"each call of {rule.tool} {other}"
    bounds = "; ".join(_bound(param) for param in rule.params)
    return f"a call of {rule.tool} must have {bounds}; any other {other}"


def _bound(param: Param) -> str:
    said = [f"at least {param.least}"] if param.least else []
    said += [f"at most {param.most}"] if param.most else []
    said += [f"one of {', '.join(param.among)}"] if param.among else []
    return f"{param.path} {' and '.join(said)}"


def label_of_skill(skill: Skill) -> Label:
    """Label an opened skill: the developer's own words."""
    return Label("developer", skill.name, trust="trusted")
