"""Scripts: which rule answers, what templates take from the conversation, and what is wrong in one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stanchion.core.errors import ConfigError
from stanchion.sim import Reply, ReplyCall, Rule, Script, When, load_script
from stanchion.sim.demo import sample
from stanchion.sim.exchange import Ask, AskedCall, AskedTool, Call, Said, Turn, WireName, pieces_of, shorten
from stanchion.sim.read_chat import read as read_chat
from stanchion.sim.script import play
from stanchion.sim.tokens import count_text, json_piece, text_piece
from tests.sim.raw import body_of

CALL = Turn("assistant", calls=(AskedCall("c1", "lookup", '{"id": "A-17"}'),))


def ask(*turns: Turn, model: str = "m", wire: WireName = "openai_chat", **more: Any) -> Ask:
    """Make a request of some turns."""
    return Ask(
        wire=wire, model=model, stream=False, system="You help.", turns=turns, pieces=(), digest="0" * 24, **more
    )


REFUND = ask(Turn("user", "refund A-17 please"))
ANSWERED = ask(Turn("user", "refund A-17"), CALL, Turn("tool", '{"cents": 1250, "items": [{"id": "x"}]}', call_id="c1"))

WHENS: list[tuple[When, bool, bool]] = [
    (When(), True, True),
    (When(user="refund"), True, False),
    (When(user="refund", after="any"), True, True),
    (When(user="^please"), False, False),
    (When(after="tool"), False, True),
    (When(after="user"), True, False),
    (When(tool="lookup"), False, True),
    (When(tool="other"), False, False),
    (When(tool_result="cents"), False, True),
    (When(tool_result="euros"), False, False),
    (When(turn=0), True, False),
    (When(turn=(1, 2)), False, True),
    (When(model="^m$"), True, True),
    (When(model="gpt"), False, False),
    (When(contains="You help"), True, True),
    (When(contains='"id": "A-17"'), False, True),
    (When(wire="anthropic"), False, False),
    (When(wire="openai_chat"), True, True),
    (When(conversation="^trip"), True, True),
    (When(conversation="^trap"), False, False),
    (When(user="refund", model="gpt"), False, False),
]


@pytest.mark.parametrize(("when", "first", "second"), WHENS)
def test_conditions(when: When, first: bool, second: bool) -> None:
    """A rule answers where all of its conditions hold, before and after a tool's result."""
    script = Script(rules=(Rule(when=when, reply=Reply(text="yes")),), default=Reply(text="no"))
    assert [play(script, a, "trip-1").said.text for a in (REFUND, ANSWERED)] == [
        "yes" if held else "no" for held in (first, second)
    ]


def test_the_first_rule_that_holds_answers() -> None:
    """Rules are tried in order, and named in the answer."""
    rules = (
        Rule(when=When(user="x"), reply=Reply(text="1")),
        Rule(when=When(user="refund"), reply=Reply(text="2"), name="refund"),
        Rule(when=When(), reply=Reply(text="3")),
    )
    played = play(Script(rules=rules), REFUND)
    assert (played.said.text, played.rule) == ("2", "refund")


def test_templates_keep_types() -> None:
    """An argument that is one template keeps its type; within a text it is text."""
    arguments = {
        "cents": "${tool.cents}",
        "item": "${tool.items.0.id}",
        "all": ["${tool.items}", {"turn": "${turn}"}],
        "note": "for ${match.who}: ${tool.cents} (${match.1}) ${nothing}".replace("${nothing}", "${tool.none}"),
    }
    rule = Rule(
        when=When(user="refund (?P<who>\\S+)", after="any"),
        reply=Reply(text="${words:3}|${model}|${system}|${user}", calls=(ReplyCall(name="f", arguments=arguments),)),
    )
    said = play(Script(rules=(rule,)), ANSWERED).said
    assert said.text == "this is a|m|You help.|refund A-17"
    assert said.finish == "tool_calls"
    assert msgspec.json.decode(said.calls[0].arguments) == {
        "cents": 1250,
        "item": "x",
        "all": [[{"id": "x"}], {"turn": 1}],
        "note": "for A-17: 1250 (A-17) ",
    }


def test_arguments_as_text_go_out_as_they_stand() -> None:
    """Malformed arguments can be scripted."""
    script = Script(default=Reply(calls=(ReplyCall(name="f", arguments='{"a": ${turn},'),)))
    assert play(script, REFUND).said.calls[0].arguments == '{"a": 0,'


BAD_SCRIPTS = [
    (b"{", "no script"),
    (b'{"rule": []}', "rule"),
    (b'{"rules": [{"when": {"usr": "x"}, "reply": {}}]}', "usr"),
    (b'{"rules": [{"when": {"user": "("}, "reply": {}}]}', "rules[0].when.user"),
    (b'{"default": {"text": "${usr}"}}', "${usr} is not known"),
    (b'{"default": {"calls": [{"name": "f", "arguments": {"a": "${x.y}"}}]}}', "${x.y} is not known"),
    (b'{"default": {"fault": {"kind": "explode"}}}', "explode"),
    (b'{"pacing": {"interval_s": "fast"}}', "interval_s"),
    (b'{"default": {"text": "${words:many}"}}', "words"),
    (b'{"pacing": {"interval_s": -1}}', "interval_s"),
]


@pytest.mark.parametrize(("data", "named"), BAD_SCRIPTS)
def test_a_bad_script_is_refused_when_it_is_loaded(data: bytes, named: str) -> None:
    """What is wrong in a script is named before any request meets it."""
    with pytest.raises(ConfigError) as caught:
        load_script(data)
    assert named in str(caught.value)


def test_a_script_is_data() -> None:
    """A script survives its way through JSON."""
    script = Script(
        rules=(Rule(when=When(user="x", turn=(1, 2)), reply=Reply(text="y", calls=(ReplyCall(name="f"),))),),
        default=Reply(text="z"),
    )
    assert load_script(msgspec.json.encode(script)) == script


SCHEMA = {
    "type": "object",
    "properties": {
        "order": {"type": "string"},
        "cents": {"type": "integer", "minimum": 5},
        "kind": {"enum": ["full", "part"]},
        "who": {"$ref": "#/$defs/Who"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "extra": {"type": "string"},
    },
    "required": ["order", "cents", "kind", "who", "tags", "note"],
    "$defs": {"Who": {"type": "object", "properties": {"id": {"type": "number"}}, "required": ["id"]}},
}


def test_the_demo_calls_a_tool_that_is_named() -> None:
    """Without a script a named tool is called with arguments of its schema's form, then its answer is told."""
    tools = (AskedTool("look", {}), AskedTool("refund", SCHEMA))
    said = play(Script(), ask(Turn("user", "refund order=A-17 cents=1250."), tools=tools)).said
    assert said.calls[0].name == "refund"
    assert msgspec.json.decode(said.calls[0].arguments) == {
        "order": "A-17",
        "cents": 1250,
        "kind": "full",
        "who": {"id": 1},
        "tags": ["simulated"],
        "note": "simulated",
    }
    told = play(Script(), ask(Turn("user", "refund"), CALL, Turn("tool", "ok", call_id="c1"), tools=tools)).said
    assert told.text == "[simulated] The tool answered: ok"
    assert play(Script(), ask(Turn("user", "hello"), tools=tools)).said.calls == ()


def test_the_demo_follows_the_tool_choice_and_the_output_schema() -> None:
    """A forced call is made, a forbidden one is not, and an output schema is answered in its form."""
    tools = (AskedTool("look", {}), AskedTool("end", {}))
    hello = Turn("user", "hello look")
    chosen = [
        [c.name for c in play(Script(), ask(hello, tools=tools, tool_choice=choice)).said.calls]
        for choice in ("auto", "required", "end", "none")
    ]
    assert chosen == [["look"], ["look"], ["end"], []]
    after = ask(hello, CALL, Turn("tool", "ok", call_id="c1"), tools=tools, tool_choice="required")
    assert play(Script(), after).said.calls[0].name == "end"
    text = play(Script(), ask(hello, output_schema=SCHEMA)).said.text
    assert msgspec.json.decode(text) == sample(SCHEMA, "")


def test_the_token_rule() -> None:
    """A token is four bytes, begun ones count; JSON counts in its canonical form."""
    assert [count_text(t) for t in ("", "a", "abcd", "abcde", "ü" * 4, "🙂")] == [0, 1, 1, 2, 2, 1]
    one, other = json_piece("tool", "tool", {"b": 1, "a": 2}), json_piece("tool", "tool", {"a": 2, "b": 1})
    assert one == other
    assert one.tokens == count_text('{"a":2,"b":1}')
    assert text_piece("message", "user", "x").digest != text_piece("message", "assistant", "x").digest


def test_input_is_the_sum_of_its_pieces() -> None:
    """Tools, system and messages are counted in this order, each by the rule."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    body = body_of("openai_chat", "hello", tools=[tool])
    body["messages"].insert(0, {"role": "system", "content": "policy"})
    read = read_chat(msgspec.json.encode(body))
    assert [p.kind for p in read.pieces] == ["tool", "system", "message"]
    assert read.input_tokens == count_text(msgspec.json.encode(tool, order="sorted").decode()) + 2 + 2


@pytest.mark.parametrize("events", [None, 1, 2, 7, 170, 100_000])
def test_pieces_join_to_the_whole(events: int | None) -> None:
    """However it is split, nothing is lost, and the number of deltas is the one asked for where text suffices."""
    said = Said("grüße " * 60, "denke 🙂 " * 9, (Call("f", '{"a": 1}' * 5), Call("g", "")))
    parts = pieces_of(said, events)
    assert ["".join(p) for p in parts] == [said.thinking, said.text, said.calls[0].arguments, ""]
    assert all(piece for part in parts for piece in part)
    if events in (7, 170):
        assert sum(map(len, parts)) == events


def test_shorten_leaves_out_calls_that_do_not_fit() -> None:
    """An answer is cut at its limit in tokens, never within a character, and never half a call."""
    said = Said("ü" * 10, "", (Call("f", "{}"), Call("g", '{"long": "argument"}')), "tool_calls")
    assert shorten(said, 100) is said
    assert shorten(said, 7) == Said("ü" * 10, "", (Call("f", "{}"),), "length")
    assert shorten(said, 2) == Said("ü" * 4, "", (), "length")
