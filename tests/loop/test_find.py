"""Tools that are found: the list in the prompt stays as it is, and a call of `call_tool` is a call of the tool itself."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core import event as ev
from stanchion.core.bundle import CALL_TOOL, EXTRACT, FIND_TOOLS, ApprovalRule, Bundle, Caps, ToolSearch
from stanchion.core.catalogue import Catalogue, disclosure
from stanchion.core.dispatch import unwrapped
from stanchion.core.loading import FOUND
from stanchion.core.message import RUNTIME, Label, Message, ToolCall, ToolResult
from stanchion.core.policy import Bound, Destination, Grant, GuardRules
from stanchion.core.quarantine import Extracted, Value
from stanchion.core.routing import RouteTable, Rung
from stanchion.loop.find import LEAST, NEAR
from stanchion.toolbox.builtin import built_in
from tests.loop.play import Play, truthful
from tests.loop.random_runs import LOOP, TOOLS, crashes, fates, scripts
from tests.loop.request import flat
from tests.loop.script import Done, Doubt, Said, Say, bundle, call, decided, tool
from tests.loop.test_random_runs import erratic
from tests.loop.test_random_runs import said as said_in
from tests.loop.test_routing import MAIN, RULES, SMALL

FIND = tool(FIND_TOOLS, parameters={"type": "object", "required": ["query"]})
DISPATCH = tool(CALL_TOOL, parameters={"type": "object", "required": ["name"]})
ID = {"type": "object", "properties": {"booking_id": {"type": "string"}}, "required": ["booking_id"]}
LOOK = tool("look_up_booking", parameters=ID)
CANCEL = msgspec.structs.replace(
    tool("cancel_booking", "irreversible", parameters=ID), description="Cancel a booked flight.", group="travel/air"
)
MOVE = msgspec.structs.replace(
    tool("move_booking", "write", parameters=ID), description="Put a booked flight on another day.", group="travel/air"
)
SEATS = msgspec.structs.replace(
    tool("list_seats", parameters=ID), description="List the free seats. Slow.", group="travel/air"
)
HOTEL = msgspec.structs.replace(tool("cancel_hotel", "write"), description="Cancel a hotel room.", group="travel/hotel")
MANY = (LOOK, CANCEL, MOVE, SEATS, HOTEL)


def made(*tools: Any, search: ToolSearch = ToolSearch(("look_up_booking",), results=2), **options: Any) -> Bundle:  # noqa: B008
    """Make a bundle with a catalogue."""
    return bundle(*(tools or MANY), FIND, DISPATCH, search=search, **options)


def finds(query: str, id: str = "c") -> ToolCall:
    """Make a search."""
    return call(FIND_TOOLS, msgspec.json.encode({"query": query}).decode(), id)


def via(name: str, arguments: Any, id: str = "c") -> ToolCall:
    """Make a call by `call_tool`."""
    return call(CALL_TOOL, msgspec.json.encode({"name": name, "arguments": arguments}).decode(), id)


def play(*said: Said, of: Bundle | None = None, **more: Any) -> Play:
    """Play an agent with a catalogue."""
    return Play(of or made(), [*said, "bye"], **more).play()


def texts(played: Play) -> list[str]:
    """What the calls were answered."""
    return [result.text for result in played.results]


GIVEN = {"booking_id": "B1"}

# --- the list, and what is found -----------------------------------------------------------------------------------------


def test_the_list_has_what_is_shown_and_what_is_built_in() -> None:
    """Of the others there is not a word in the request."""
    request = play().requests[0][1]
    assert [schema.name for schema in request.tools] == ["look_up_booking", FIND_TOOLS, CALL_TOOL, "read_result"]
    assert "cancel_booking" not in msgspec.json.encode(request).decode()


def test_what_is_found_stands_at_the_tail_as_the_developer_s_words() -> None:
    """The best two, whole, with what is less near by name; the verdict is an event as for any call."""
    played = play(finds("cancel a booking"))
    assert played.results == [ToolResult("c", FIND_TOOLS, texts(played)[0], FOUND)]
    lines = texts(played)[0].split("\n")
    assert lines[:2] == [disclosure(CANCEL), disclosure(HOTEL)]
    assert msgspec.json.decode(lines[0])["parameters"] == ID
    assert lines[2:] == ["More, found by name: look_up_booking, move_booking."]
    assert [(e.action, e.rule, e.tool) for e in played.events(ev.ToolCallJudged)] == [("allow", "built_in", FIND_TOOLS)]
    assert played.attempts == []
    assert Label("developer", FIND_TOOLS, trust="trusted") == FOUND


def test_how_a_found_tool_is_called_is_said_in_the_list_alone() -> None:
    """It stands in each request as it is; in an answer it would be paid for with each search, in each turn behind."""
    listed = {one.spec.name: one.spec for one in built_in(freeze=False, quarantine=False, search=True).values()}
    assert f"call them with {CALL_TOOL}" in listed[FIND_TOOLS].description
    assert FIND_TOOLS in listed[CALL_TOOL].description
    assert set(listed[CALL_TOOL].parameters["properties"]) == {"name", "arguments"}
    played = play(finds("cancel a flight"), finds("travel/air"), finds("cancel_hotel"), finds("cancel a flight"))
    assert not any(CALL_TOOL in text for text in texts(played))


def test_what_the_model_has_read_does_not_hide_the_next_best() -> None:
    """Described best is a tool of the list; what it looks for is shown all the same, if it is described half as well."""
    asked = "look up a booking to cancel a flight"
    assert texts(play(finds(asked)))[0].startswith(disclosure(CANCEL))
    near = {spec.name: near for spec, near in Catalogue(made()).ranked(asked)}
    assert LEAST < near["cancel_booking"] < NEAR * near["look_up_booking"]
    assert "move_booking" in texts(play(finds("look up a booking")))[0].split("More, found by name: ")[1]


def test_each_request_begins_with_the_one_before() -> None:
    """Over searches, dispatched calls and the session's next run (I8); `Play` asserts it of each request as well."""
    first = play(finds("cancel a flight"), via("cancel_booking", GIVEN), finds("another day"))
    second = play(via("move_booking", GIVEN), finds("seats"), base=first)
    requests = [request for _, request in (*first.requests, *second.requests)]
    assert all(flat(after)[: len(flat(before))] == flat(before) for before, after in pairwise(requests))
    assert second.events(ev.PrefixReset) == []
    assert all(request.tools == requests[0].tools for request in requests)


def test_what_stands_above_or_in_the_list_is_named_and_not_said_again() -> None:
    """In the next turn, in the session's next run, and twice in one step."""
    first = play(finds("cancel a booking"), finds("cancel a booking"))
    again = play(finds("look up a booking, cancel_booking"), base=first)
    twice = play([finds("cancel a booking", "a"), finds("cancel a booking", "b")])
    assert texts(first)[1].startswith("You have these before you already: cancel_booking, cancel_hotel.\n")
    assert "already: cancel_booking, look_up_booking." in texts(again)[-1]
    assert texts(twice)[1] == texts(first)[1]


def test_a_tool_that_changed_is_said_anew() -> None:
    """What stands above is the old one."""
    newer = msgspec.structs.replace(CANCEL, description="Cancel a booked flight. Costs 20 %.")
    first = play(finds("cancel_booking"))
    again = play(finds("cancel_booking"), of=made(LOOK, newer, MOVE, SEATS, HOTEL), base=first)
    assert disclosure(newer) in texts(again)[-1]


def test_names_go_first_in_the_order_in_which_they_are_said() -> None:
    """Whatever their case, and whatever else the words describe."""
    lines = texts(play(finds('seats: "LIST_SEATS" or cancel_hotel, free seats')))[0].split("\n")
    assert lines[:2] == [disclosure(SEATS), disclosure(HOTEL)]


def test_nothing_found_says_how_to_go_on() -> None:
    """It is no failure of the model's, and no text of the developer's."""
    (result,) = play(finds("xyzzy")).results
    assert (result.label, result.error) == (RUNTIME, False)
    assert result.text == (
        "No tool is described by these words. Say it in others: what is to be done, and to what. "
        "There are groups: travel, travel/air, travel/hotel."
    )


def test_a_group_is_listed() -> None:
    """A wider one by the groups in it; a tool by its name and the first sentence of what it does."""
    assert texts(play(finds("travel"), finds("Travel/Air/"))) == [
        "travel:\n- travel/air/ (3 tools)\n- travel/hotel/ (1 tool)\nSearch for a name to see its parameters.",
        (
            "travel/air:\n- cancel_booking: Cancel a booked flight.\n- move_booking: Put a booked flight on another day.\n"
            "- list_seats: List the free seats.\nSearch for a name to see its parameters."
        ),
    ]


def test_an_answer_keeps_its_room() -> None:
    """The best is given whole however long it is; another only where there is room, else it is named."""
    long = [
        msgspec.structs.replace(tool(f"report_{n}"), description=f"Make report {n}. " + "x" * (900 if n else 9_000))
        for n in range(6)
    ]
    of = made(*long, search=ToolSearch((), results=5, max_chars=2_500))
    first, *rest = texts(play(finds("report_0"), finds("make a report"), of=of))
    assert first.split("\n")[0] == disclosure(long[0])
    assert sum(len(line) for line in rest[0].split("\n") if line.startswith("{")) <= 2_500
    assert "More, found by name: " in rest[0]
    listed = made(*(msgspec.structs.replace(spec, group="g") for spec in long), search=of.search or ToolSearch())
    assert len(texts(play(finds("g"), of=listed))[0]) < 2_700


def test_what_is_not_granted_is_not_offered() -> None:
    """Neither by the agent's grants nor by those of the start; the verdict does not rest on it."""
    of = made(guard=GuardRules(grants=(Grant(tools=("look_*", "move_*", "list_*")),)))
    found = texts(play(finds("cancel a flight"), finds("travel/air"), via("cancel_booking", GIVEN), of=of))
    assert "cancel_booking" not in found[0] + found[1]
    assert "move_booking" in found[0]
    assert found[2].startswith("Not allowed: ")


# --- a call by `call_tool` is a call of the tool -------------------------------------------------------------------------


def test_the_journal_names_the_tool_and_the_conversation_the_form() -> None:
    """Verdict and attempt are the tool's, with its own arguments; the result answers to the name that was called."""
    played = play(via("cancel_booking", GIVEN))
    assert [(e.tool, e.rule) for e in played.events(ev.ToolCallJudged)] == [("cancel_booking", "tier:irreversible")]
    assert [(a.tool, a.arguments) for a in played.attempts] == [("cancel_booking", b'{"booking_id":"B1"}')]
    assert played.events(ev.ToolCallFinished)[0].parts[0].name == "cancel_booking"
    assert [(r.name, r.label.name) for r in played.results] == [(CALL_TOOL, "cancel_booking")]
    assert played.state.worked == ("cancel_booking",)


def test_a_found_tool_can_be_called_by_its_own_name() -> None:
    """Some models do; and one that was not looked for as well: what may be called, verdicts say."""
    played = play(finds("cancel a flight"), call("cancel_booking", '{"booking_id":"B1"}'), call("cancel_hotel"))
    assert [name for name, _, _ in played.did] == ["cancel_booking", "cancel_hotel"]


@pytest.mark.parametrize(
    "arguments",
    [
        '{"name":"move_booking","arguments":{"booking_id":"B1"}}',
        '{"arguments":{"booking_id":"B1"},"name":"move_booking"}',
        '{"name":"move_booking","arguments":"{\\"booking_id\\":\\"B1\\"}"}',
        ' {"name": "move_booking", "arguments" : {"booking_id" : "B1"} } ',
    ],
)
def test_the_forms_that_are_taken(arguments: str) -> None:
    """An object, in any order; and a string that spells one, as some models write it."""
    assert play(call(CALL_TOOL, arguments)).did[0][:2] == ("move_booking", '{"booking_id":"B1"}')


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "missing ['name']"),
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"arguments":{}}', "missing ['name']"),
        ('{"name":7}', "call_tool calls another tool: say its name, and its arguments."),
        ('{"name":"move_booking","booking_id":"B1"}', "call_tool calls another tool: say its name, and its arguments."),
        ('{"name":"call_tool","arguments":{"name":"move_booking"}}', "call_tool calls another tool"),
        ('{"name":"move_booking"}', "missing ['booking_id']"),
        ('{"name":"move_booking","arguments":"B1"}', "not an object"),
        ('{"name":"move_booking","arguments":null}', "not an object"),
        ('{"name":"move_booking","arguments":[1]}', "not an object"),
        ('{"name":"move_boking","arguments":{}}', "There is no tool named 'move_boking'. Did you mean move_booking"),
        ('{"name":"zzz","arguments":{}}', "There is no tool named 'zzz'. Look for others with find_tools."),
        ('{"name":"\\ud800","arguments":{}}', ""),
    ],
)
def test_what_cannot_be_taken_is_told_and_not_done(arguments: str, said: str) -> None:
    """By the real tool's schema where a tool is named, by the form's where none is."""
    played = play(call(CALL_TOOL, arguments))
    assert played.did == []
    assert said in texts(played)[0]
    assert played.results[0].error
    assert played.end == ("done", "")


def test_a_built_in_can_be_called_so_too() -> None:
    """Models do it; it means the same."""
    assert texts(play(via(FIND_TOOLS, {"query": "cancel_hotel"})))[0].startswith(disclosure(HOTEL))


def test_people_limits_and_loops_know_the_tool() -> None:
    """An approval rule, a person's edit, and going in circles go by the tool and its own arguments."""
    of = made(approvals=(ApprovalRule(tool="move_booking"),))
    edit = lambda game, waiting: decided(waiting, "edit", '{"booking_id":"B2"}')  # noqa: E731
    played = play(via("move_booking", GIVEN), of=of, person=edit)
    assert [a.arguments for a in played.attempts] == [b'{"booking_id":"B2"}']
    assert 'your call of move_booking to: {"booking_id":"B2"}' in played.told[0]
    round_and_round = Play(made(), [Say((via("list_seats", GIVEN),), "tool_calls")] * 12).play()
    assert round_and_round.end == ("halted", "loop:same_call")
    assert Play(made(caps=Caps(tool_calls=1)), [via("list_seats", GIVEN)] * 2).play().end == ("halted", "tool_calls")


def test_the_guard_judges_the_values_of_the_tool() -> None:
    """What a tool's parameters mean holds under either name; a description that was found is no ground for a value."""
    pay = tool("pay", "irreversible", params={"to": Destination("account"), "cents": Bound("money")})
    pay = msgspec.structs.replace(pay, description="Pay. At most 5000 cents, as to DE89370400440532013000.")
    arguments = {"to": "DE89370400440532013000", "cents": 5000}
    named = play(finds("pay"), via("pay", arguments), of=made(LOOK, pay))
    direct = play(finds("pay"), call("pay", msgspec.json.encode(arguments).decode()), of=made(LOOK, pay))
    assert [c.rule for c in named.state.calls] == [c.rule for c in direct.state.calls] == ["ungrounded"]
    assert named.state.calls[0].values == direct.state.calls[0].values != ()


def test_a_dry_run_pretends_it() -> None:
    """Reads are done, effects are not."""
    played = play(via("cancel_booking", GIVEN), via("list_seats", GIVEN), dry_run=True)
    assert [(a.tool, a.mode) for a in played.attempts] == [("cancel_booking", "dry"), ("list_seats", "run")]


def test_in_quarantine_a_found_tool_takes_references_and_the_search_does_not() -> None:
    """Text that is not shown goes into a tool's arguments; it chooses nothing that the planner is shown, and no tool's name."""
    extracted = Extracted("r1", {"what": Value("string", "cancel_hotel")})
    asks = call(EXTRACT, '{"ref":"r1","question":"What?","fields":{"what":{"type":"string"}}}')
    ask = tool(EXTRACT, parameters={"type": "object", "required": ["ref", "question", "fields"]})
    played = Play(
        made(*MANY, ask, guard=GuardRules(quarantine=True)),
        [
            call("look_up_booking", '{"booking_id":"B1"}'),
            asks,
            finds("{{r1.what}}"),
            via("{{r1.what}}", {}),
            finds("free seats"),
            via("list_seats", {"booking_id": "{{r1.what}}"}),
            "bye",
        ],
        {
            "look_up_booking": [Done("cancel_hotel")],
            EXTRACT: [Done(msgspec.json.encode(extracted).decode())],
            "list_seats": [Done("12A")],
        },
    ).play()
    said = texts(played)
    assert said[2] == "find_tools takes no references: say what you look for."
    assert said[3].startswith("There is no tool named '{{r1.what}}'.")
    assert said[4].startswith(disclosure(SEATS))
    assert [a.arguments for a in played.attempts if a.tool == "list_seats"] == [b'{"booking_id":"cancel_hotel"}']
    assert said[5].startswith("[result r2 of list_seats: untrusted, 3 characters, not shown.")
    assert "12A" not in msgspec.json.encode([request for _, request in played.requests]).decode()


def test_only_a_request_that_showed_it_dispatches() -> None:
    """A tool of an earlier journal that was named `call_tool` keeps its calls as they were."""
    own = tool(CALL_TOOL, "write", parameters={"type": "object", "required": ["name"]})
    entries = play(via("cancel_booking", GIVEN), of=bundle(own, CANCEL)).events(
        ev.ModelCallStarted, ev.ToolCallFinished
    )
    assert not any(e.dispatch for e in entries if isinstance(e, ev.ModelCallStarted))
    assert all(e.dispatch for e in play(finds("x")).events(ev.ModelCallStarted))
    finished = [e.parts[0] for e in entries if isinstance(e, ev.ToolCallFinished)]
    assert [part.name for part in finished if isinstance(part, ToolResult)] == [CALL_TOOL]


def test_a_cheap_model_with_a_brief_context_is_understood_as_well() -> None:
    """It is shown the last step as it was, so it may write its calls in the same form though it is not shown that."""
    table = RouteTable(table={"act": (Rung(1, 800, tools=("list_seats",)),)})
    of = msgspec.structs.replace(made(routes=(MAIN,), others=(SMALL,), routing=table), identity=RULES)
    played = play(via("list_seats", GIVEN), via("list_seats", {"booking_id": "B2"}), of=of)
    brief = [request for _, request in played.requests if [schema.name for schema in request.tools] == ["list_seats"]]
    assert [event.view for event in played.events(ev.ModelCallStarted)] == ["", "brief", "brief"]
    assert len(brief) == 2
    assert [a.arguments for a in played.attempts] == [b'{"booking_id":"B1"}', b'{"booking_id":"B2"}']


# --- whatever happens, it is the same run --------------------------------------------------------------------------------


def catalogue(**options: Any) -> Bundle:
    """The agent with a tool of each kind, none of them shown."""
    return made(*TOOLS, search=ToolSearch(), approvals=(ApprovalRule(tool="pay"),), loop=LOOP, routes=2, **options)


def dispatched(script: list[Any]) -> list[Any]:
    """Let the model make its calls by `call_tool`, where what it writes is JSON at all."""
    return [_said(said) for said in script]


def _said(said: Any) -> Any:
    if not isinstance(said, Say):
        return said
    return Say(tuple(map(_dispatched, said.parts)), said.finish, said.usage, said.took_ms)


def _dispatched(part: Any) -> Any:
    if not isinstance(part, ToolCall) or part.arguments == "{":
        return part
    return via(part.name, msgspec.json.decode(part.arguments), part.id)


def done(played: Play) -> list[ev.Event]:
    """What the journal says, but for what the model wrote and what it cost."""
    events: list[ev.Event] = []
    for entry in played.entries:
        match entry.event:
            case ev.ModelCallStarted() | ev.ModelCallFinished() | ev.ModelCallFailed():
                continue
            case ev.RunFinished() as event:
                events.append(msgspec.structs.replace(event, cost=0))
            case event:
                events.append(event)
    return events


def heard(messages: tuple[Message, ...]) -> list[Any]:
    """The conversation without the calls, and without the names that results answer to."""
    parts = [part for message in messages for part in message.parts if not isinstance(part, ToolCall)]
    return [msgspec.structs.replace(part, name="") if isinstance(part, ToolResult) else part for part in parts]


@given(script=scripts, luck=fates, dies=crashes, seed=st.integers(0, 999))
@settings(max_examples=150)
def test_a_dispatched_call_is_the_same_call(script: Any, luck: Any, dies: Any, seed: int) -> None:
    """Whatever fails, dies, or is decided: the journal has the same verdicts, attempts, keys, results and end."""
    direct = Play(catalogue(), script, luck, person=erratic(seed), crashes=dies).play()
    formed = Play(catalogue(), dispatched(script), luck, person=erratic(seed), crashes=dies).play()
    assert done(formed) == done(direct)
    assert formed.did == direct.did
    assert heard(formed.state.messages) == heard(direct.state.messages)
    assert formed.state.traces == direct.state.traces


@pytest.mark.parametrize("fate", [[Done("ok")], [Doubt(done=True), Done("ok")], [Doubt(done=False), Done("ok")]])
@pytest.mark.parametrize("name", [spec.name for spec in TOOLS])
@pytest.mark.parametrize("after", range(1, 6))
def test_killed_at_each_append(name: str, fate: Any, after: int) -> None:
    """One death at each place: the run has done the same to the world as the one that was not killed."""
    said = [finds(name), via(name, {"q": 1})]
    whole = play(*said, of=catalogue(), tools={name: fate}, person=truthful)
    for left in (False, True):
        killed = play(*said, of=catalogue(), tools={name: fate}, person=truthful, crashes={after: left})
        assert (killed.end, killed.effects()) == (whole.end, whole.effects())
        assert said_in(killed.state) == said_in(whole.state)


@pytest.mark.parametrize("arguments", ['{"a":' * 100_000, '{"name":"x","arguments":' + "[" * 100_000, '"' * 9, "\x00"])
def test_no_text_of_arguments_stops_the_fold(arguments: str) -> None:
    """However deep it is."""
    assert unwrapped(call(CALL_TOOL, arguments)) is None


def test_the_fold_unwraps_what_a_random_model_writes() -> None:
    """No text of arguments stops a fold."""
    chance = random.Random(5)
    for _ in range(300):
        text = "".join(chance.choice('{}[]":,\\nameargutscl 01\ud800é') for _ in range(chance.randint(0, 60)))
        whole = '{"name":"move_booking","arguments":' + text
        for arguments in (text, whole, whole + "}"):
            assert play(call(CALL_TOOL, arguments.encode("utf-8", "replace").decode())).state.ended


def test_a_tool_that_is_far_behind_the_best_is_named_only() -> None:
    """Its schema would be paid for in each turn behind; a search for its name shows it."""
    of = made(search=ToolSearch(("look_up_booking",), results=5))
    (answer,) = texts(play(finds("cancel a booked flight"), of=of))
    assert answer.startswith(disclosure(CANCEL))
    assert disclosure(HOTEL) not in answer
    assert HOTEL.name in answer.partition("More, found by name: ")[2]
    assert disclosure(HOTEL) in texts(play(finds(HOTEL.name), of=of))[0]
