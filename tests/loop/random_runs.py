"""Random runs: any script of a model, any luck of its tools, any worker's death."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from stanchion.core.bundle import ApprovalRule, Bundle, Caps, LoopRules, Route
from stanchion.core.message import MODEL, Text, Thinking
from stanchion.core.money import Price
from stanchion.core.routing import RouteTable, Rung
from tests.loop.script import FAST, Break, Done, Doubt, Not, Say, Wrong, bundle, call, tool

TOOLS = (
    tool("look", max_result_chars=12),
    tool("poll", repeatable=True),
    tool("save", "write", keyed=True),
    tool("post", "write"),
    tool("pay", "irreversible", keyed=True),
    tool("send", "irreversible"),
    tool("book", "irreversible", reconciles=True),
    tool("file", "write", keyed=True, reconciles=True),
    tool("wipe", "destructive"),
    tool("strict", parameters={"type": "object", "required": ["q"]}),
)
NAMES = tuple(spec.name for spec in TOOLS)
LOOP = LoopRules(same_call=6, failures=12)


ATTEMPTS = TOOLS[0].retry.attempts
"""Of a call that was not done."""


def agent(**options: Any) -> Bundle:
    """The agent with a tool of each kind."""
    return bundle(*TOOLS, routes=2, approvals=(ApprovalRule(tool="pay"),), loop=LOOP, **options)


CHEAP = Route("p", "cheap", Price(0, 0, 0, 0, 0), max_output_tokens=400, retry=FAST)
ROUTED = RouteTable(
    table={"plan": (Rung(2, 4_000),), "act": (Rung(2, 4_000, tools=("look", "poll")), Rung(2, 8_000))},
    escalate_below=50,
    hand_over_below=5,
)


def routed(**options: Any) -> Bundle:
    """The agent, whose turns go to a cheaper model first, with a judge of its answers."""
    return agent(others=(CHEAP,), steps={"judge": 2}, routing=ROUTED, **options)


_good = st.builds(
    call, st.sampled_from(NAMES), st.sampled_from(('{"q":1}', '{"n":1,"q":1}', '{"q":2}')), st.sampled_from("cd")
)
_odd = st.builds(
    call,
    st.sampled_from((*NAMES, "unknown", "read_result")),
    st.sampled_from(("{}", "{", "[]", '{"result":"1","offset":10}')),
)
_texts = st.sampled_from(("one", "two", " ", "ü€𝄞")).map(lambda text: Text(text, MODEL))
_thoughts = st.just(Thinking("hm", MODEL, signature="s"))
_steps = st.builds(
    lambda said, calls, more, finish, took: Say((*said, *calls, *more), finish, took_ms=took),
    st.lists(st.one_of(_texts, _thoughts), max_size=1),
    st.lists(_good, min_size=1, max_size=4),
    st.lists(st.one_of(_odd, _texts), max_size=1),
    st.sampled_from(("tool_calls", "tool_calls", "tool_calls", "length")),
    st.sampled_from((10, 900)),
)
_answers = st.builds(
    lambda parts, finish: Say(tuple(parts), finish),
    st.lists(st.one_of(_odd, _texts, _thoughts), max_size=2),
    st.sampled_from(("length", "pause", "tool_calls", "stop")),
)
_breaks = st.sampled_from(
    (Break(), Break("cut"), Break("auth", retryable=False), Break(after_s=7), Break("early_end", billed=True))
)
scripts = st.lists(st.one_of(_steps, _steps, _steps, _steps, _answers, _breaks), min_size=3, max_size=7).map(
    lambda said: [*said, "bye"]
)

_took = st.sampled_from((1, 50, 2_000))
_fates = st.one_of(
    st.builds(lambda took: Done("ok", took), _took),
    st.builds(lambda done, took, code, again: Doubt(done, code, again, took), st.booleans(), _took,
              st.sampled_from(("tool_timeout", "http_500", "tool_crashed")), st.booleans()),
    st.builds(lambda took: Not(took_ms=took), _took),
    st.builds(lambda took: Wrong(took_ms=took), _took),
)  # fmt: skip


def _ends(fate: list[Any]) -> bool:
    """The last attempt that a tool has is not "not done": the call is given up then; where one was lost as well, a person may go on."""
    return not isinstance(fate[-1], Not) or len(fate) < ATTEMPTS


fates = st.fixed_dictionaries(
    {
        name: st.lists(_fates, min_size=1, max_size=ATTEMPTS).filter(_ends).map(lambda f: [*f, Done("ok")])
        for name in NAMES
    }
)

crashes = st.dictionaries(st.integers(1, 25), st.booleans(), max_size=6)
caps = st.sampled_from((Caps(), Caps(nano_usd=12_000_000), Caps(tool_calls=3), Caps(turns=3), Caps(wall_s=4)))
