"""A set of Cedar policies: what it says of a call, that doubt denies, and that a set with a fault is refused whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cedarpy
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.cedar.context import CONTEXT, domain_of
from stanchion.cedar.named import Named, named_by
from stanchion.cedar.policies import CedarPolicies
from stanchion.cedar.schema import actions_of
from stanchion.cedar.shape import Plain, Record, SetOf, Unfit, arguments_of, fitted, merged
from stanchion.cedar.source import PolicyFile, PolicyText, decode, read_files, split
from stanchion.core.bundle import Bundle, Route, ToolSpec
from stanchion.core.errors import ConfigError
from stanchion.core.money import Price
from stanchion.core.policy import Bound, Destination, Grant, GuardRules
from stanchion.core.state import State
from stanchion.guard.both import Both, Unreadable, digests_of, in_force
from stanchion.guard.evidence import Evidence
from stanchion.guard.ground import Finding, findings
from stanchion.guard.judge import judge
from stanchion.guard.standing import Policies, Said, Standing, standing

ROUTE = Route("p", "m", Price(0, 0, 0, 0, 0))
REFUND = ToolSpec(
    "refund",
    "",
    {
        "type": "object",
        "properties": {
            "order": {"type": "string"},
            "cents": {"type": "integer"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "rate": {"type": "number", "default": 1.5},
            "tags": {"type": "array", "items": {"type": "string"}},
            "to": {"type": "string"},
            "more": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "required": ["order", "cents"],
    },
    "irreversible",
    params={"to": Destination("email"), "cents": Bound("money")},
)
LOOK = ToolSpec("look", "", {"type": "object", "properties": {}}, "read")
BUNDLE = Bundle("support", "Help.", (ROUTE,), (REFUND, LOOK), guard=GuardRules(ungrounded_irreversible="allow"))
PERMIT = '@id("base") permit(principal, action, resource);\n'


def policies(*texts: str) -> CedarPolicies:
    """Make a set of files a.cedar, b.cedar .."""
    return CedarPolicies(PolicyText(tuple(PolicyFile(f"{chr(97 + n)}.cedar", text) for n, text in enumerate(texts))))


def stand(**more: Any) -> Standing:
    """Make the standing of a run of Ann's."""
    return Standing(Evidence(BUNDLE).of(State()), now_ms=1000, tenant="acme", user="ann", agent="support", **more)


def said(found: Policies, spec: ToolSpec = REFUND, *, standing: Standing | None = None, **arguments: Any) -> Said:
    """Ask a set about a call."""
    known = standing or stand()
    values = findings(spec, arguments, BUNDLE.guard, known.evidence, known.granted)
    return found.decide(known, spec, arguments, values)


def refund(found: Policies, **more: Any) -> Said:
    return said(found, **({"order": "A-17", "cents": 500} | more))


def test_forbid_denies_permit_allows_and_nothing_denies() -> None:
    """What nothing permits is denied; a forbid beats every permit; each names itself."""
    assert refund(policies(PERMIT)) == Said("allow", ("base",))
    assert refund(policies("")) == Said("deny", ("no_permit",), "no policy permits it")
    assert said(policies('permit(principal, action == Action::"refund", resource);'), LOOK).rules == ("no_permit",)
    dear = '@id("dear") @reason("too dear") forbid(principal, action == Action::"refund", resource) when { context.arguments.cents > 400 };'
    assert refund(policies(PERMIT + dear)) == Said("deny", ("dear",), "too dear")
    assert refund(policies(PERMIT + dear), cents=400).action == "allow"


def test_a_permit_that_asks_beats_one_that_does_not() -> None:
    """Whichever stands first; a policy without a name is called by its place."""
    ask = '// why\n@ask("a person looks")\npermit(principal, action in Action::"tier:effect", resource);\n'
    assert refund(policies(PERMIT, ask)) == Said("ask", ("b.cedar:2",), "a person looks")
    assert refund(policies(ask, PERMIT)).rules == ("a.cedar:2",)
    assert said(policies(ask, PERMIT), LOOK).action == "allow"


@pytest.mark.parametrize(
    "rule",
    [
        'when { context.arguments.note == "x" }',  # the field is not there
        "when { context.arguments.cents + 9223372036854775807 > 0 }",  # it overflows
        "when { context.nothing }",
        "when { principal.nobody == 1 }",
        "when { ip(context.arguments.order).isLoopback() }",  # it is no address
    ],
)
def test_a_policy_that_fails_denies_where_cedar_would_allow(rule: str) -> None:
    """A forbid that cannot be evaluated is skipped by Cedar; here nothing passes it, and the reason names it."""
    found = refund(policies(PERMIT + f'@id("stop") forbid(principal, action, resource) {rule};'))
    assert (found.action, found.rules) == ("deny", ("error",))
    assert "'stop'" in found.reason
    unless = refund(policies(PERMIT, f'@id("go") permit(principal, action, resource) {rule};'))
    assert (unless.action, unless.rules) == ("deny", ("error",))


@pytest.mark.parametrize(
    "arguments",
    [{"cents": 2**63}, {"cents": -(2**63) - 1}, {"cents": "5"}, {"cents": True}, {"cents": None}, {"tags": "x"},
     {"tags": [1]}, {"rate": "x"}, {"rate": 1e30}, {"order": 5}, {"rate": float("nan")}],
)  # fmt: skip
def test_what_cannot_be_told_to_cedar_is_denied(arguments: dict[str, Any]) -> None:
    """Nothing is left out of what a policy was promised. What no policy names may be anything."""
    names = " || ".join(f"context.arguments has {name}" for name in ("cents", "tags", "rate", "order"))
    named = f"forbid(principal, action, resource) when {{ !({names}) }};"
    assert refund(policies(PERMIT, named), **arguments).rules == ("unfit",)
    assert refund(policies(PERMIT), **arguments).action == "allow"


def test_arguments_are_told_by_their_types() -> None:
    """Strings, whole numbers, decimals with their default, sets; null is as if it were not given; a map is not told."""
    rule = """permit(principal, action, resource) when {
        context.arguments.order == "A-17" && context.arguments.cents == -3
        && context.arguments.rate.lessThan(decimal("1.6")) && context.arguments.tags.contains("x")
        && !(context.arguments has note) && !(context.arguments has more) };"""
    assert refund(policies(rule), cents=-3, tags=["x", "y"], note=None, more={"__entity": "x"}).action == "allow"
    assert refund(policies(rule), cents=-3, tags=["x", "y"], rate=1.6).action == "deny"


def test_destinations_are_told_with_their_grounds() -> None:
    """In normal form, by domain, and which of them nobody trusted said."""
    home = 'permit(principal, action, resource) when { ["ours.example"].containsAll(context.domains) };'
    assert refund(policies(home), to="Ann@Ours.example").action == "allow"
    assert refund(policies(home), to="ann@ours.example.evil.example").action == "deny"
    assert refund(policies(home), to="nobody").action == "deny"
    exact = """permit(principal, action, resource) when { context.destinations.contains(
        {path: "to", kind: "email", value: "ann@ours.example", ground: "allowed"}) && context.ungrounded == ["cents"]
        && context.granted.contains({kind: "email", value: "ann@ours.example"}) && context.now_ms == 1000 };"""
    allowed = stand(granted=(Grant(kind="email", value="ann@ours.example"),))
    assert refund(policies(exact), to="Ann@ours.example", standing=allowed).action == "allow"
    assert refund(policies(exact), to="Ann@ours.example").action == "deny"


@pytest.mark.parametrize(
    ("kind", "form", "domain"),
    [("email", "a@b.example", "b.example"), ("email", "nobody", ""), ("url", "b.example/x?y@z", "b.example"),
     ("url", "user@b.example:8080/x", "b.example"), ("url", "[::1]:80/x", "[::1]:80")],
)  # fmt: skip
def test_domains(kind: str, form: str, domain: str) -> None:
    """Of an address and of a URL, whoever stands before it."""
    assert domain_of(kind, form) == domain


def test_who_calls_is_told() -> None:
    """The user within the tenant, the agent and the task; names that look like Cedar are names."""
    rule = """permit(principal == User::"acme/ann", action, resource == Tool::"refund") when {
        principal.tenant == "acme" && principal.user == "ann" && principal.agent == "support" && principal.task == "returns"
        && resource.tier == "irreversible" };"""
    assert refund(policies(rule), standing=stand(task="returns")).action == "allow"
    assert refund(policies(rule), standing=stand()).action == "deny"
    odd = msgspec.structs.replace(stand(), user='ann", x: "\n')
    assert refund(policies(PERMIT), standing=odd).action == "allow"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("permit(principal, action, resource);\n\n// c\nforbid(principal action, resource);", 4, "no Cedar policy"),
        ("permit(principal, action, resource)", 1, "no Cedar policy"),
        ("\npermit(principal == ?principal, action, resource);", 2, "templates"),
        ('@ask("x") forbid(principal, action, resource);', 1, "@ask"),
        ('@id("a") permit(principal, action, resource);\n@id("a") permit(principal, action, resource);', 2, "already"),
    ],
)
def test_a_set_with_a_fault_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    """Whole, and says where."""
    with pytest.raises(ConfigError, match=rf"b\.cedar:{line}: .*{words}"):
        policies(PERMIT.replace("base", "b"), text)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ('permit(principal, action == Action::"refnd", resource);', "unrecognized action"),
        ('forbid(principal, action == Action::"refund", resource) when { context.arguments.note == "x" };', "optional"),
        ('forbid(principal, action == Action::"refund", resource) when { context.arguments.cents == "x" };', "types"),
        ('forbid(principal, action == Action::"refund", resource) when { context.arguments has mor && context.arguments.mor };', "mor"),
        ("forbid(principal, action, resource) when { principal.tenat == \"x\" };", "tenat"),
        ('forbid(principal == Usr::"x", action, resource);', "Usr"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_tools_is_a_problem(rule: str, words: str) -> None:
    """Unknown tools and attributes, wrong types, and fields that may be missing."""
    problems = policies(PERMIT, "\n" + rule).problems([BUNDLE])
    assert [(problem.file, problem.line) for problem in problems] == [("b.cedar", 2)]
    assert words in problems[0].text


def test_what_fits_has_no_problems() -> None:
    """Groups by tier, guarded optional fields, every field of the context."""
    rules = """forbid(principal, action in Action::"tier:destructive", resource);
    forbid(principal, action == Action::"refund", resource) when { context.arguments has note && context.arguments.note like "*;*" };
    permit(principal, action in [Action::"tier:read", Action::"tier:effect"], resource) unless {
        context.untrusted && context.secrecy.contains("internal") || context.grounds.contains("none") || context.values.isEmpty()
        || context.bounds.contains({path: "cents", kind: "money", value: "5", ground: "none"}) };"""
    assert policies(rules).problems([BUNDLE]) == []


def test_two_agents_tools_of_one_name_are_taken_together() -> None:
    """A field of one of them may be missing; one of two types cannot be named."""
    other = ToolSpec(
        "refund", "", {"properties": {"cents": {"type": "integer"}, "order": {"type": "integer"}}, "required": ["cents"]},
        "write",
    )  # fmt: skip
    both = [BUNDLE, Bundle("b", "", (ROUTE,), (other,))]
    cents = 'forbid(principal, action == Action::"refund", resource) when { context.arguments.cents > 5 };'
    order = 'forbid(principal, action == Action::"refund", resource) when { context.arguments.order == "x" };'
    assert policies(cents).problems(both) == []
    assert policies(order).problems([BUNDLE]) == []
    assert len(policies(order).problems(both)) == 1
    assert {"id": "tier:write"} in actions_of(both)["refund"]["memberOf"]


def test_shapes() -> None:
    """What Cedar can be told of JSON Schema, and what it cannot."""
    schema: dict[str, Any] = {
        "properties": {
            "word": {"enum": ["a", "b"]},
            "amount": {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^x"}]},
            "mixed": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "items": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": ["string", "null"]}}}},
            "any": {},
            "__entity": {"type": "string"},
            "loop": {"$ref": "#/$defs/x"},
        }
    }
    shape = arguments_of(schema)
    assert sorted(shape.fields) == ["amount", "items", "word"]
    assert (shape.fields["word"].shape, shape.fields["amount"].shape) == (Plain("String"), Plain("decimal"))
    items = shape.fields["items"].shape
    assert isinstance(items, SetOf)
    assert isinstance(items.item, Record)
    assert not items.item.fields["id"].required
    assert fitted(shape, {"amount": "12.34567"}, "")["amount"] == {"__extn": {"fn": "decimal", "arg": "12.3457"}}
    assert fitted(shape, {"items": [{"id": None, "x": 1}]}, "") == {"items": [{}]}
    with pytest.raises(Unfit, match=r"items\.0 is no object"):
        fitted(shape, {"items": ["x"]}, "")
    assert merged(shape, Record({})).fields["word"].required is False


def test_policies_are_cut_where_they_end() -> None:
    """A semicolon in a string or a comment ends nothing."""
    text = '// a; b\npermit(principal, action, resource) when { "x;\\"y;" == "" }; // c;\n\n@id("z")\nforbid(principal, action, resource);\n// end;\n'
    assert [(line, piece.split("(")[0]) for line, piece in split(text)] == [(2, "permit"), (4, "@id")]


def test_a_set_is_read_from_files_and_kept_under_its_digest(tmp_path: Path) -> None:
    """A folder's *.cedar files; the stored text gives the same set again."""
    (tmp_path / "b.cedar").write_text(PERMIT)
    (tmp_path / "a.cedar").write_text("forbid(principal, action, resource) when { false };")
    (tmp_path / "notes.txt").write_text("no policy")
    text = read_files([tmp_path])
    assert [file.name for file in text.files] == ["a.cedar", "b.cedar"]
    assert decode(text.encode()).digest == text.digest
    (tmp_path / "b.cedar").write_text(PERMIT + "\n")
    assert read_files([tmp_path]).digest != text.digest
    for bad, words in ((tmp_path / "none", "no file or folder"), (tmp_path / "empty", "has no")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match=words):
            read_files([bad])
    (tmp_path / "empty" / "a.cedar").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_files([tmp_path / "empty"])
    with pytest.raises(ConfigError, match="named"):
        read_files([tmp_path, tmp_path / "empty"])


class Says:
    """A set that says the same of everything."""

    def __init__(self, digest: str, answer: Said) -> None:
        self.digest = digest
        self._answer = answer

    def decide(self, standing: Standing, spec: ToolSpec, arguments: Mapping[str, Any], found: list[Finding]) -> Said:
        return self._answer


@pytest.mark.parametrize("began", ["allow", "ask", "deny"])
@pytest.mark.parametrize("active", ["allow", "ask", "deny"])
def test_of_two_sets_the_stricter_counts(began: Any, active: Any) -> None:
    """Tightened at once, loosened for new sessions; the digest names both."""
    both = in_force(Says("b", Said(began, ("x",), "r1")), Says("a", Said(active, ("y",), "r2")))
    assert both is not None
    assert (both.digest, digests_of(both.digest)) == ("b+a", ["b", "a"])
    order = ["allow", "ask", "deny"]
    answer = said(both)
    assert answer.action == order[max(order.index(began), order.index(active))]
    assert answer.reason == (
        "r1; r2" if began == active else "r1" if order.index(began) > order.index(active) else "r2"
    )


def test_one_set_stands_for_itself() -> None:
    """And what cannot be read allows nothing."""
    one, same = Says("a", Said("allow")), Says("a", Said("allow"))
    assert in_force(None, None) is None
    assert in_force(one, None) is in_force(one, same) is in_force(None, one) is one
    assert said(Both(one, Unreadable("b", "gone"))) == Said("deny", ("unreadable",), "gone")
    assert digests_of("") == []


@pytest.mark.parametrize("approved", [False, True])
def test_the_guard_takes_what_policies_say(approved: bool) -> None:
    """A person's yes lifts what was asked, never what was denied."""
    ask = '@id("look") @ask("a person looks") permit(principal, action, resource);'
    for text, action, rule in (
        (PERMIT, "allow", "tier:irreversible"),
        (ask, "allow" if approved else "ask", "approved:policy:look" if approved else "policy:look"),
        ("", "deny", "policy:no_permit"),
    ):
        known = standing(State(tenant="acme"), Evidence(BUNDLE), 1, policies(text))
        verdict = judge(BUNDLE, "refund", {"order": "A", "cents": 5}, approved=approved, standing=known)
        assert (verdict.action, verdict.rule) == (action, rule)


@pytest.mark.parametrize(
    ("rule", "context", "arguments"),
    [
        ("true", set(), set()),
        ("context.secrecy.contains(principal.user) && context.now_ms > 5", {"secrecy", "now_ms"}, set()),
        ("context.arguments.cents > 5 || context.arguments has note", {"arguments"}, {"cents", "note"}),
        ("context has arguments.more.deep", {"arguments"}, None),
        ('context.arguments["odd name"].x == 1', {"arguments"}, {"odd name"}),
        ("[context.untrusted].contains(if context.granted.isEmpty() then true else false)", {"untrusted", "granted"}, set()),
        ("{a: context.values}.a.isEmpty()", {"values"}, set()),
        ("context.arguments == {cents: 5}", {"arguments"}, None),
        ("context == principal", None, set()),
        ("[context].isEmpty()", None, set()),
    ],
)  # fmt: skip
def test_only_what_policies_name_is_told(rule: str, context: set[str] | None, arguments: set[str] | None) -> None:
    """Everything, where one looks at the whole."""
    text = f"forbid(principal, action, resource) unless {{ {rule} }};"
    parsed = msgspec.json.decode(cedarpy.policies_to_json_str(text))["staticPolicies"]["policy0"]
    named = named_by([parsed])
    assert named == Named(
        None if context is None else frozenset(context), None if arguments is None else frozenset(arguments)
    )
    assert named.tells_argument("cents") == (context is None or arguments is None or "cents" in arguments)


def test_every_field_of_the_context_is_declared_and_made() -> None:
    """What the schema promises is what is told."""
    declared = actions_of([BUNDLE])["look"]["appliesTo"]["context"]["attributes"]
    assert set(CONTEXT) | {"arguments"} == set(declared)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.sampled_from(["order", "cents", "note", "rate", "tags", "to", "more", "__extn"]), JSON)
WHOLE = (
    PERMIT
    + """
@id("odd") forbid(principal, action, resource) when { context.arguments has cents && context.arguments.cents < 0 };
@id("rate") @ask("?") permit(principal, action, resource) when { context.arguments.rate.greaterThan(decimal("2.0")) };
@id("same") forbid(principal, action, resource) when { context == {} || context.arguments == {} };
"""
)


@settings(max_examples=200, deadline=None)
@given(ARGUMENTS, st.text(max_size=5))
def test_every_set_answers_whatever_it_is_asked(arguments: dict[str, Any], user: str) -> None:
    """What the port promises: an answer, never an exception; the same for the same; a denial and a question have a name."""
    cedar = policies(WHOLE)
    known = msgspec.structs.replace(stand(), user=user)
    sets: list[Policies] = [cedar, policies(PERMIT), Both(cedar, policies("")), Unreadable("x", "gone")]
    for each in sets:
        answer = each.decide(known, REFUND, arguments, [])
        assert each.digest
        assert answer == each.decide(known, REFUND, arguments, [])
        assert answer.action == "allow" or (answer.rules and answer.reason)
    assert sets[2].decide(known, REFUND, arguments, []).action == "deny"
