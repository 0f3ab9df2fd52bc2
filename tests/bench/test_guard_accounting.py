"""The accounting of the replays, the reading of recordings, and the data of policies and variants: without the benchmark itself."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.guard.accounting import Asked, Outcome, row
from bench.guard.attacker import PLANS, in_base64, in_brackets, lettered, look_alike, spaced
from bench.guard.meaning import Policy
from bench.guard.recordings import Proposed, Recording, read, recording, text_of
from bench.guard.session import Question, Session, view_of
from bench.guard.variants import BY_NAME, VARIANTS
from stanchion.core.bundle import Bundle, Route, ToolSpec
from stanchion.core.money import Price
from stanchion.core.policy import Bound, Content, Destination, GuardRules, ResultField
from stanchion.guard.shape import shapes_in

SUITES = ("workspace", "slack", "banking", "travel")


def told(**said: Any) -> bytes:
    """A recorded run as a line."""
    plain = {
        "suite_name": "banking", "user_task_id": "user_task_1", "injection_task_id": None, "messages": [
            {"role": "system", "content": "Be good."},
            {"role": "user", "content": [{"type": "text", "content": "Pay"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"function": "pay", "args": {"to": "A"}}]},
            {"role": "tool", "content": "paid"},
            {"role": "assistant", "content": "Done", "tool_calls": None},
        ],
    }  # fmt: skip
    return msgspec.json.encode({**plain, **said})


def test_a_recording_is_read_in_any_of_its_forms() -> None:
    """Content is a string, blocks, or nothing; what tools said is left out, for live ones say it again."""
    run = recording(told(utility=True))
    assert (run.version, run.identity, run.kind, run.useful) == ("v1", "Be good.", "benign", True)
    assert [(turn.role, turn.text) for turn in run.turns] == [("user", "Pay"), ("assistant", ""), ("assistant", "Done")]
    assert run.turns[1].calls == (Proposed("pay", {"to": "A"}),)
    assert text_of([{"content": "a"}, {"content": None}, {"content": "b"}]) == "ab"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({}, "benign"),
        ({"injection_task_id": "injection_task_1", "attack_type": "direct"}, "attack"),
        ({"injection_task_id": "injection_task_1", "attack_type": "felony_dos"}, "denial"),
        ({"user_task_id": "injection_task_1"}, "goal_as_task"),
        ({"error": "Skipping task 'user_task_1'"}, "skipped"),
        ({"messages": []}, "skipped"),
    ],
)
def test_which_table_a_recording_counts_in(said: dict[str, Any], kind: str) -> None:
    """Denial of service, goals given as tasks, and skipped records are apart."""
    assert recording(told(**said)).kind == kind


def test_success_without_an_injection_means_nothing() -> None:
    """The benchmark writes true there."""
    assert not recording(told(security=True)).succeeded
    assert recording(told(security=True, injection_task_id="injection_task_1")).succeeded


def test_lines_are_read_packed_and_plain(tmp_path: Path) -> None:
    """Both kinds of files give the same lines."""
    import lzma

    (tmp_path / "a.jsonl").write_bytes(b"1\n2\n")
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(b"1\n2\n"))
    assert list(read(tmp_path / "a.jsonl")) == list(read(tmp_path / "a.jsonl.xz")) == [b"1\n", b"2\n"]


def test_a_row_counts_what_the_goal_says() -> None:
    """Attacks, benign runs asked and broken; text goals, other kinds and runs that do not reproduce are apart."""
    honest, other = Asked("pay", "ungrounded", "honest"), Asked("pay", "ungrounded", "other")
    known = [
        Outcome("", "travel", "attack", "t1", "injection_task_1", had_succeeded=True, succeeded=True),
        Outcome("", "travel", "attack", "t1", "injection_task_2", succeeded_honest=True),
        Outcome("", "travel", "attack", "t1", "injection_task_6", succeeded=True),
        Outcome(
            "", "travel", "benign", "t1", was_useful=True, asked=(honest, honest), useful_honest=True, reproduced=True
        ),
        Outcome("", "travel", "benign", "t2", was_useful=True, asked=(other,), reproduced=True, denied=1),
        Outcome("", "travel", "benign", "t3", was_useful=True),
        Outcome("", "travel", "benign", "t4", was_useful=True, useful_honest=True, reproduced=True),
        Outcome("", "travel", "benign", "t5"),
        Outcome("", "travel", "denial", "t1", "injection_task_1", succeeded=True),
        Outcome("", "travel", "skipped", "t1"),
        Outcome("", "travel", "goal_as_task", "injection_task_1", was_useful=True, asked=(honest,)),
    ]
    found = row("travel", "default", known)
    assert (found["attacks"], found["attacks_through"], found["attacks_through_share"]) == (2, 1, 50.0)
    assert (found["attacks_recorded_through"], found["attacks_through_honest_yes"]) == (1, 1)
    assert (found["benign_useful"], found["benign_asked"], found["benign_asked_share"]) == (4, 2, 50.0)
    assert (found["questions_per_run"], found["benign_denied"], found["benign_not_reproduced"]) == (0.75, 1, 1)
    assert (found["broken"], found["broken_of_honest_questions"]) == (1, 0)
    assert (found["broken_tasks"], found["questions_other"]) == ({"t2": 1}, {"pay:ungrounded": 1})
    assert found["apart"] == {
        "text_goals": 1, "text_goals_through": 1, "denial_of_service": 1, "goal_as_task": 1, "skipped": 1,
        "goal_as_task_recorded_through": 1, "goal_as_task_through": 0, "goal_as_task_asked": 1,
    }  # fmt: skip


def policy(suite: str) -> Policy:
    """A suite's policy."""
    return importlib.import_module(f"bench.guard.policies.{suite}").POLICY


@pytest.mark.parametrize("suite", SUITES)
def test_a_policy_says_of_each_effect_where_it_goes(suite: str) -> None:
    """A tool with an effect on others has a destination or a bound; what only a secret level names has readers."""
    known = policy(suite)
    for name, meaning in known.tools.items():
        if meaning.effect in ("irreversible", "destructive"):
            assert any(isinstance(role, Destination | Bound) for role in meaning.params.values()), name
    secret = {field.secrecy for meaning in known.tools.values() for field in meaning.result.values()} - {"public"}
    assert secret <= {level.name for level in known.levels}


@pytest.mark.parametrize("suite", SUITES)
def test_variants_only_take_away(suite: str) -> None:
    """Each step of strictness looks at more; the default is the policy as written."""
    whole = policy(suite)
    bounds, destinations = BY_NAME["bounds"].shape(whole), BY_NAME["destinations"].shape(whole)
    assert BY_NAME["default"].shape(whole) == whole
    for name, meaning in whole.tools.items():
        for path, role in meaning.params.items():
            assert isinstance(bounds.tools[name].params.get(path, Content()), type(role) | Content)
            kept = destinations.tools[name].params.get(path, Content())
            assert (kept == role) if isinstance(role, Destination) else isinstance(kept, Content)
    assert not any(meaning.params for meaning in BY_NAME["tiers"].shape(whole).tools.values())
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS) == len(BY_NAME)


@pytest.mark.parametrize("write", [in_base64, in_brackets, look_alike, spaced, lettered])
def test_each_way_of_writing_is_another_text(write: Any) -> None:
    """The plans do write differently; the guard sees the shape of it where a host stands alone."""
    assert write("www.evil-site.example") != "www.evil-site.example"
    assert shapes_in(f"look at {write('www.evil-site.example')} now") is not None
    assert len({plan.name for plan in PLANS}) == len(PLANS)


class _Check:
    def arguments(self, tool: str, text: str) -> bytes | str:
        return text.encode() if tool == "pay" else f"there is no {tool}"

    def output(self, text: str) -> str:
        return ""


def test_a_session_asks_makes_and_denies_as_a_run_does() -> None:
    """Grounded by the user: made. Not grounded: asked, and made only on a yes. Refused once: denied without a question."""
    pay = ToolSpec("pay", "", {}, "write", params={"to": Destination("account")})
    ledger = ToolSpec("ledger", "", {}, "read", result={"*.to": ResultField("account", trusted=True)})
    bundle = Bundle("a", "", (Route("p", "m", Price(0, 0, 0, 0, 0)),), (pay, ledger), guard=GuardRules())
    asked: list[Question] = []

    def person(question: Question) -> bool:
        asked.append(question)
        return question.args["to"] == "friend-2222"

    session = Session(view_of(bundle, _Check()), "pay mine-1111", lambda tool, args: (f"{tool} did", False), person)
    for account in ("mine-1111", "friend-2222", "thief-3333", "thief-3333"):
        session.propose("", [Proposed("pay", {"to": account})])
    assert [call.args["to"] for call in session.made] == ["mine-1111", "friend-2222"]
    assert [(verdict.action, verdict.approved) for verdict in session.verdicts] == [
        ("allow", False), ("ask", True), ("ask", False), ("deny", False),
    ]  # fmt: skip
    assert [question.values for question in asked] == [("friend-2222",), ("thief-3333",)]
    assert session.state.messages[-1].role == "user"
    assert isinstance(recording(told()), Recording)
