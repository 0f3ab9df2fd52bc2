"""The plain path: say, call, read, answer; and what becomes of answers that cannot be used."""

from __future__ import annotations

import pytest

from stanchion.core import event as ev
from stanchion.core.bundle import LoopRules, ToolSpec
from stanchion.core.message import MODEL, RUNTIME, USER, Text, Thinking, ToolResult
from tests.loop.play import Play
from tests.loop.script import Done, Not, Say, bundle, call, say, tool

LOOK, PAY, STRICT = tool("look"), tool("pay", "irreversible"), tool("ask", parameters={"required": ["q"]})


def cut(*parts: object) -> Say:
    return Say(say(parts).parts, "length")  # type: ignore[arg-type, union-attr]


def test_an_answer_ends_the_run() -> None:
    """No tool: the events are start, call, answer, end."""
    play = Play(bundle(), ["hi"]).play()
    assert play.types == ["run_started", "model_call_started", "model_call_finished", "run_finished"]
    assert (play.end, play.answer) == (("done", ""), "hi")


def test_a_tool_call_is_judged_started_and_its_result_goes_to_the_model() -> None:
    """The second request holds the call and its result."""
    play = Play(bundle(LOOK), [call("look", '{"a":1}'), "done"]).play()
    assert play.types[3:6] == ["tool_call_judged", "tool_call_started", "tool_call_finished"]
    (judged,) = play.events(ev.ToolCallJudged)
    assert (judged.action, judged.rule, judged.call) == ("allow", "tier:read", "3.0")
    assert [type(p).__name__ for m in play.requests[1][1].messages for p in m.parts] == [
        "Text",
        "ToolCall",
        "ToolResult",
    ]


@pytest.mark.parametrize("first", [10, 300])
def test_results_of_parallel_calls_go_in_call_order(first: int) -> None:
    """Whichever settles first: the model reads them as it asked (I8)."""
    play = Play(
        bundle(LOOK, PAY),
        [[call("look", id="a"), call("pay", id="b")], "done"],
        {"look": [Done("A", first)], "pay": [Done("B", 100)]},
    ).play()
    assert [(r.id, r.text) for r in play.results] == [("a", "A"), ("b", "B")]
    assert play.end == ("done", "")


def test_repeated_provider_ids_do_not_confuse_calls() -> None:
    """Two calls of one id are two calls."""
    play = Play(bundle(LOOK), [[call("look", '{"n":1}'), call("look", '{"n":2}')], "done"]).play()
    assert [a.call for a in play.attempts] == ["3.0", "3.1"]
    assert len({play.entries[0].event.run} | {a.call for a in play.attempts}) == 3  # type: ignore[union-attr]


def test_without_parallel_calls_one_is_under_way_at_a_time() -> None:
    """The second starts only after the first is settled."""
    play = Play(bundle(LOOK, parallel_tool_calls=False), [[call("look"), call("look", '{"n":2}')], "done"]).play()
    kinds = [t for t in play.types if t.startswith("tool_call") and t != "tool_call_judged"]
    assert kinds == ["tool_call_started", "tool_call_finished"] * 2


def test_one_at_a_time_holds_through_a_retry() -> None:
    """While the first waits to be tried again, the second does not start."""
    play = Play(
        bundle(LOOK, tool("other"), parallel_tool_calls=False),
        [[call("look"), call("other")], "done"],
        {"look": [Not(), Done()]},
    ).play()
    assert [a.tool for a in play.attempts] == ["look", "look", "other"]


UNUSABLE = {
    "not JSON": call("look", "{nope"),
    "not an object": call("look", "[1]"),
    "unknown tool": call("lok"),
    "wrong arguments": call("ask", "{}"),
    "cut in a call": cut(call("pay")),
    "cut in prose": cut("I was about to"),
    "empty": Say(()),
    "blank": "  \n",
    "thinking only": Say((Thinking("hm", MODEL),)),
    "calls announced and not made": Say((), "tool_calls"),
}


@pytest.mark.parametrize("bad", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_answer_that_cannot_be_used_is_answered_and_bounded(bad: object) -> None:
    """The model is told, and may mend it; three times in a row end the run. Nothing is ever called for it."""
    tools = (LOOK, PAY, STRICT)
    mended = Play(bundle(*tools), [bad, "good"]).play()  # type: ignore[list-item]
    assert (mended.end, mended.answer) == (("done", ""), "good")
    assert mended.told or mended.results[0].error
    ended = Play(bundle(*tools), [bad]).play()  # type: ignore[list-item]
    assert ended.end == ("failed", "malformed")
    assert ended.state.totals.turns == 3
    assert mended.attempts == ended.attempts == []


@pytest.mark.parametrize("choice", ["required", "look"])
def test_prose_where_a_tool_is_required_is_no_answer(choice: str) -> None:
    """The model is told to call a tool."""
    play = Play(bundle(LOOK, tool_choice=choice), ["prose", call("look"), "prose"]).play()
    assert "Call a tool" in play.told[0]
    assert play.end == ("failed", "malformed")


def test_an_answer_of_the_wrong_form_is_said_what_is_wrong_with() -> None:
    """The output check's words reach the model; the right form ends the run."""
    play = Play(bundle(), ["x", "7"], wrong=lambda text: "" if text.isdigit() else "not a number").play()
    assert "not a number" in play.told[0]
    assert play.answer == "7"


def test_a_usable_step_starts_the_count_anew() -> None:
    """Malformed, malformed, a good call, malformed, malformed, answer: never three in a row."""
    bad = call("look", "{")
    rules = LoopRules(failures=0, same_call=0)
    play = Play(bundle(LOOK, loop=rules), [bad, bad, call("look"), bad, bad, "good"]).play()
    assert play.end == ("done", "")


def test_the_bound_on_malformed_answers_can_be_switched_off() -> None:
    """0: only the other limits end it."""
    play = Play(
        bundle(LOOK, loop=LoopRules(malformed=0, failures=0, same_call=0)), [*[call("look", "{")] * 4, "good"]
    ).play()
    assert play.end == ("done", "")


def test_only_the_last_call_of_a_cut_answer_is_refused() -> None:
    """The ones before it were whole."""
    play = Play(bundle(LOOK, PAY), [cut(call("look"), call("pay")), "good"]).play()
    assert [a.tool for a in play.attempts] == ["look"]
    assert [r.error for r in play.results] == [False, True]


def test_no_call_of_a_refused_answer_is_made() -> None:
    """A refusal in mid-answer withdraws its calls; the run fails, and the transcript stays whole."""
    play = Play(bundle(PAY), [Say((call("pay"),), "refusal")]).play()
    assert play.end == ("failed", "refusal")
    assert play.attempts == []
    assert isinstance(play.state.messages[-1].parts[0], ToolResult)


def test_a_refusal_fails_the_run_with_what_was_said() -> None:
    """The model's words are its best."""
    play = Play(bundle(), [Say((Text("I will not.", MODEL),), "refusal")]).play()
    assert (play.end, play.answer) == (("failed", "refusal"), "I will not.")


def test_a_paused_answer_is_continued() -> None:
    """Both halves are one message and one answer."""
    play = Play(bundle(), [Say((Text("one ", MODEL),), "pause"), "two"]).play()
    assert play.answer == "one two"
    assert [m.role for m in play.state.messages] == ["user", "assistant"]


def test_a_message_during_a_step_goes_behind_its_results() -> None:
    """It would otherwise stand between calls and results (I8)."""
    said = ev.MessageAdded(by="ann", parts=(Text("wait", USER),))
    play = Play(bundle(LOOK), [call("look"), "done"], inject={1: [said], 2: [said]}).play()
    assert [type(p).__name__ for p in play.state.messages[2].parts] == ["ToolResult", "Text", "Text"]


def test_a_message_during_the_last_call_gets_an_answer() -> None:
    """The run does not end while something is unanswered."""
    said = ev.MessageAdded(by="ann", parts=(Text("one more thing", USER),))
    play = Play(bundle(), ["first", "second"], inject={1: [said]}).play()
    assert play.answer == "second"
    assert [m.role for m in play.state.messages] == ["user", "assistant", "user", "assistant"]


def test_a_tool_that_ends_the_run_hands_over() -> None:
    """After it succeeded nobody asks the model; after it failed the model is asked."""
    hand = tool("transfer", "write", ends_run=True)
    assert Play(bundle(hand), [call("transfer"), "never"]).play().end == ("escalated", "handed_over")
    spoilt = Play(bundle(hand, tool("x", parameters={"required": ["q"]})), [call("transfer", "{"), "said"]).play()
    assert spoilt.end == ("done", "")


def long(n: int) -> str:
    return "".join(chr(97 + k % 26) for k in range(n))


def pages(number: object, offset: object) -> str:
    return f'{{"result":"{number}","offset":{offset}}}'


def test_a_long_result_is_read_in_pieces() -> None:
    """The start is shown, the rest is read by number and offset to the end, and each piece says how to go on."""
    long_tool: ToolSpec = tool("look", max_result_chars=10)
    script = [call("look"), call("read_result", pages(1, 10)), call("read_result", pages(1, 20)), "done"]
    play = Play(bundle(long_tool), script, {"look": [Done(long(25))]}).play()
    texts = [r.text for r in play.results]
    assert texts[0].startswith(long(10) + "\n[15 more characters")
    assert texts[1] == long(25)[10:20] + "\n[5 more characters from offset=20 on.]"
    assert texts[2] == long(25)[20:] + "\n[end]"
    assert play.state.totals.tool_calls == 1


@pytest.mark.parametrize(
    ("number", "offset", "text", "error"),
    [
        (1, -5, long(25)[:10] + "\n[15 more characters from offset=10 on.]", False),
        (1, 10**30, "\n[end]", False),
        (1, 25, "\n[end]", False),
        (2, 0, "There is no long result '2'; there are 1.", True),
        (0, 0, "There is no long result '0'; there are 1.", True),
        ("²", 0, "There is no long result '²'; there are 1.", True),
        ("9" * 5000, 0, "There is no long result '" + "9" * 64 + "'; there are 1.", True),
    ],
    ids=["negative", "huge", "end", "unknown", "zero", "superscript", "endless"],
)
def test_reading_on_takes_any_number_and_offset(number: object, offset: int, text: str, error: bool) -> None:
    """Whatever the model writes is answered, and nothing raises."""
    play = Play(
        bundle(tool("look", max_result_chars=10)),
        [call("look"), call("read_result", pages(number, offset)), "done"],
        {"look": [Done(long(25))]},
    ).play()
    assert (play.results[1].text, play.results[1].error) == (text, error)


def test_a_later_run_of_a_session_reads_on_in_an_earlier_result() -> None:
    """Results keep their numbers across runs."""
    agent = bundle(tool("look", max_result_chars=10))
    first = Play(agent, [call("look"), "done"], {"look": [Done(long(25))]}).play()
    second = Play(agent, [call("look"), call("read_result", pages(1, 20)), "x"], {"look": [Done("Z" * 12)]}, base=first)
    texts = [r.text for r in second.play().results]
    assert 'result="2"' in texts[1]
    assert texts[2] == long(25)[20:] + "\n[end]"


def test_a_dry_run_lets_no_effect_leave() -> None:
    """The whole loop runs: reads for real, effects pretended, destructive ones too, and nobody is asked."""
    agent = bundle(LOOK, PAY, tool("wipe", "destructive"), tool("peek", dry_run=True))
    script = [[call("look"), call("pay"), call("wipe"), call("peek")], "done"]
    play = Play(agent, script, dry_run=True).play()
    assert [(a.tool, a.mode) for a in play.attempts] == [
        ("look", "run"),
        ("pay", "dry"),
        ("wipe", "dry"),
        ("peek", "dry"),
    ]
    assert play.effects() == []
    assert [f.outcome for f in play.events(ev.ToolCallFinished)] == ["ok", *["pretended"] * 3]
    assert play.events(ev.RunFinished)[0].done == ()


def test_a_dry_run_ends_where_the_real_one_would() -> None:
    """A pretended hand-over is one."""
    play = Play(bundle(tool("transfer", "write", ends_run=True)), [call("transfer"), "never"], dry_run=True).play()
    assert play.end == ("escalated", "handed_over")


def test_what_was_done_is_listed_at_the_end() -> None:
    """Calls with an effect that ended well; reads are not listed."""
    play = Play(bundle(LOOK, PAY), [[call("look"), call("pay")], "done"]).play()
    (finished,) = play.events(ev.RunFinished)
    assert (finished.done, finished.in_doubt) == (("3.1",), ())


def test_the_runtime_s_words_are_labelled_as_its_own() -> None:
    """They are trusted, the model's and the tools' are not."""
    play = Play(bundle(LOOK), [call("look", "{"), call("look"), "done"]).play()
    assert play.results[0].label == RUNTIME
    assert play.results[1].label.trust == "untrusted"
