"""Try a set of policies before it is in force: hold it against the tools of agents, and ask it about made-up calls.

- tool: refund
  arguments: {order_id: A-17, cents: 40000}
  context: {user: ann, said: "Refund A-17"}
  expect: ask
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from stanchion.agent import Agent
from stanchion.core.bundle import Bundle, EffectTier, ToolSpec
from stanchion.core.errors import ConfigError, InputError
from stanchion.core.message import USER, Message, Text
from stanchion.core.policy import Grant
from stanchion.core.state import State
from stanchion.guard.evidence import Evidence
from stanchion.guard.ground import Finding, Ground, findings
from stanchion.guard.standing import Policies, Said, Standing
from stanchion.runtime.opening.binding import bind_agents
from stanchion.runtime.opening.policies import load_policies


class Going(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A destination of a made-up call."""

    kind: str
    value: str
    path: str = ""
    ground: Ground = "none"


class Allowed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A destination that people allowed in the session."""

    kind: str
    value: str


class CaseContext(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who makes the call, and what was said and read before."""

    tenant: str = "default"
    user: str = ""
    agent: str = ""
    task: str = ""
    tier: EffectTier = "write"
    """Of a tool that no agent file describes."""
    said: str = ""
    """The user's words: they ground values."""
    destinations: list[Going] | None = None
    """None: what the tool's parameters say."""
    secrecy: list[str] = []
    untrusted: bool = False
    granted: list[Allowed] = []
    now_ms: int = 0


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call, and what the policies are to say of it."""

    tool: str
    expect: Literal["allow", "ask", "deny"]
    arguments: dict[str, Any] = {}
    context: CaseContext = CaseContext()
    rule: str = ""
    """A policy that is to be among those that decide."""
    name: str = ""


class Tried(msgspec.Struct, frozen=True):
    """What the policies said of a case."""

    name: str
    tool: str
    expected: str
    action: str
    rules: list[str]
    reason: str
    ok: bool


class Checked(msgspec.Struct, frozen=True):
    """A set without problems."""

    digest: str
    policies: list[str]
    """Their names."""
    agents: list[str]
    """Against whose tools it was held."""


def check_policies(places: Sequence[str | Path], agents: Sequence[Agent]) -> Checked:
    """Read a set and hold it against the tools of agents. Raises `ConfigError` with the file and line of each problem."""
    bundles = _bundles(agents)
    found = load_policies(places, bundles)
    return Checked(found.digest, [policy.name for policy in found.policies], [bundle.agent for bundle in bundles])


def try_cases(places: Sequence[str | Path], agents: Sequence[Agent], cases: Sequence[Case]) -> list[Tried]:
    """Ask a set about each case. Raises `ConfigError`, and `InputError` for a case that names no tool of the agents."""
    bundles = _bundles(agents)
    policies = load_policies(places, bundles)
    return [_tried(policies, bundles, case, number) for number, case in enumerate(cases, 1)]


def read_cases(file: str | Path) -> list[Case]:
    """Read cases from JSON or YAML. Raises `ConfigError`, and `InputError` that names the field."""
    path = Path(file)
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cases: cannot read {str(path)!r}: {error.strerror}") from None
    try:
        plain = _yaml(body) if path.suffix in (".yaml", ".yml") else msgspec.json.decode(body)
        return msgspec.convert(plain, type=list[Case])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r}: {error}", field="cases") from None


def _yaml(body: bytes) -> Any:
    try:
        return msgspec.yaml.decode(body)
    except ImportError:
        raise ConfigError("cases in YAML need PyYAML; install it with: pip install pyyaml, or write JSON") from None


def _bundles(agents: Sequence[Agent]) -> list[Bundle]:
    return [bound.bundle for bound in bind_agents(tuple(agents), {}, {}, drive=False).values()]


def _tried(policies: Policies, bundles: Sequence[Bundle], case: Case, number: int) -> Tried:
    said = _ask(policies, bundles, case, number)
    ok = said.action == case.expect and (not case.rule or case.rule in said.rules)
    expected = f"{case.expect} by {case.rule}" if case.rule else case.expect
    name = case.name or f"case {number}"
    return Tried(name, case.tool, expected, said.action, list(said.rules), said.reason, ok)


def _ask(policies: Policies, bundles: Sequence[Bundle], case: Case, number: int) -> Said:
    bundle, spec = _tool(bundles, case, number)
    context = case.context
    messages = (Message("user", (Text(context.said, USER),)),) if context.said else ()
    evidence = Evidence(bundle).of(State(messages=messages))
    evidence.secrecy.update(context.secrecy)
    evidence.untrusted = context.untrusted
    granted = tuple(Grant(kind=one.kind, value=one.value) for one in context.granted)
    known = Standing(
        evidence,
        context.now_ms,
        context.tenant,
        context.user,
        context.agent or bundle.agent,
        context.task,
        granted=granted,
        policies=policies,
    )
    found = findings(spec, case.arguments, bundle.guard, evidence, granted)
    if context.destinations is not None:
        going = (Finding(one.path, one.value, "destination", one.kind, one.ground) for one in context.destinations)
        found = [*going, *(finding for finding in found if finding.role == "bound")]
    return policies.decide(known, spec, case.arguments, found)


def _tool(bundles: Sequence[Bundle], case: Case, number: int) -> tuple[Bundle, ToolSpec]:
    """Find the tool of a case; without agents make one up whose arguments are as they are given."""
    for bundle in bundles:
        spec = bundle.tool(case.tool)
        if spec is not None and case.context.agent in ("", bundle.agent):
            return bundle, spec
    if bundles:
        names = ", ".join(sorted({spec.name for bundle in bundles for spec in bundle.tools}))
        raise InputError(f"there is no tool {case.tool!r}; there are: {names}", field=f"cases[{number - 1}].tool")
    schema = {"type": "object", **_described(case.arguments)}
    return Bundle("", "", ()), ToolSpec(case.tool, "", schema, case.context.tier)


def _described(value: Any) -> dict[str, Any]:
    """Describe a value by a JSON Schema, as far as Cedar goes by it."""
    match value:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
        case list():
            items = cast("list[Any]", value)
            return {"type": "array", "items": _described(items[0]) if items else {"type": "string"}}
        case dict():
            known = cast("dict[str, Any]", value)
            fields = {name: _described(inner) for name, inner in known.items() if inner is not None}
            return {"type": "object", "properties": fields, "required": list(fields)}
        case _:
            return {}
