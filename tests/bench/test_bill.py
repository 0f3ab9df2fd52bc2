"""The floors are those of the published prices, worked out by hand; a small session is billed at its floor."""

from __future__ import annotations

import msgspec
import pytest

from bench import planted
from bench.bill import measure
from bench.floor import ASKED, BRIEF, ROWS, WORKED, Task, floor
from stanchion.sim.exchange import Ask, Turn
from stanchion.sim.script import play

SONNET = "anthropic:claude-sonnet-4-6"


@pytest.mark.parametrize(
    ("row", "usd"),
    [
        ("naive", 3.2625),
        ("cold", 0.7035),
        ("warm", 0.4965),
        ("routed-cold", 0.5066),
        ("routed-warm", 0.2996),
        ("6min-once-cold", 0.723),
        ("6min-once-warm", 0.516),
        ("6min-every-cold", 0.879),
        ("6min-every-warm", 0.537),
        ("70min-once-cold", 0.900),
        ("70min-once-warm", 0.530),
        ("70min-every-cold", 1.170),
        ("70min-every-warm", 0.797),
    ],
)
def test_the_floors(row: str, usd: float) -> None:
    """15 turns from 60,000 to 80,000 tokens, 500 answered in each."""
    assert floor(ROWS[row], Task(), SONNET) / 1e9 == pytest.approx(usd, abs=6e-4)


async def test_a_routed_session_is_billed_at_its_floor_and_each_answer_is_right() -> None:
    """Every second turn by the cheap model, from at most 2,000 tokens that hold what it needs out of 30,000."""
    task = Task(turns=15, first=16_000, last=30_000, output=500)
    (bill,) = await measure(SONNET, task, [ROWS["routed-warm"]])
    assert bill.wrong == 0
    assert bill.ratio == pytest.approx(1.0, abs=0.01)
    assert len(bill.brief_tokens) == 8
    assert max(bill.brief_tokens) <= BRIEF
    assert bill.lives == ["short"] * 7


@pytest.mark.parametrize("turn", list(planted.QUESTIONS))
def test_the_script_answers_rightly_only_with_the_facts(turn: int) -> None:
    """All of them, in the words in which they were planted; what the question itself says does not suffice."""
    question, script = planted.QUESTIONS[turn], planted.script(10)
    facts = [fact.text for fact in question.facts]
    for left in (facts, facts[1:], []):
        ask = Ask(
            wire="anthropic", model="m", stream=False, system="You are a desk.", pieces=(),
            turns=(Turn("user", "\n".join((*left, f"(ask {turn}) {question.text}"))),),
        )  # fmt: skip
        assert play(script, ask).said.text.startswith(planted.RIGHT if left == facts else planted.WRONG)


async def test_an_approval_of_six_minutes_is_billed_at_the_floor_of_a_pause() -> None:
    """A session of five turns in which a person takes as long to decide as he did in others: one read more, and no second write."""
    row = msgspec.structs.replace(ASKED["6min-asked-cold"], before=3)
    task = Task(turns=5, first=8_000, last=12_000, output=500)
    (bill,) = await measure(SONNET, task, [row])
    assert bill.refreshes == 1
    assert bill.ratio == pytest.approx(1.0, abs=0.01)
    assert bill.lives == ["short"] * 5


def test_a_person_s_pause_has_the_floor_of_any() -> None:
    """It is the same input at the same times."""
    for name, row in ASKED.items():
        assert floor(row, Task(), SONNET) == floor(ROWS[name.replace("asked", "once")], Task(), SONNET)


async def test_a_tool_of_six_minutes_is_billed_at_the_floor_of_a_pause() -> None:
    """A session of five turns in which a tool takes as long as it did in others: one read more, and no second write."""
    row = msgspec.structs.replace(WORKED["6min-tool-cold"], before=3)
    task = Task(turns=5, first=8_000, last=12_000, output=500)
    (bill,) = await measure(SONNET, task, [row])
    assert bill.refreshes == 1
    assert bill.ratio == pytest.approx(1.0, abs=0.01)
    assert bill.lives == ["short"] * 5
    (alone,) = await measure(SONNET, task, [row], left_alone=True)
    assert alone.refreshes == 0
    assert alone.nano_usd > 1.1 * bill.nano_usd


def test_a_tool_s_pause_has_the_floor_of_any() -> None:
    """20 minutes are two reads of 70,000 tokens more than 6."""
    once = floor(ROWS["6min-once-cold"], Task(), SONNET)
    assert floor(WORKED["6min-tool-cold"], Task(), SONNET) == once
    assert floor(WORKED["20min-tool-cold"], Task(), SONNET) == once + 2 * 70_000 * 300


async def test_a_session_is_billed_at_its_floor() -> None:
    """Over HTTP, by the provider's own bill: five turns without a pause."""
    task = Task(turns=5, first=8_000, last=12_000, output=500)
    (bill,) = await measure(SONNET, task, [ROWS["cold"]])
    assert bill.ratio == pytest.approx(1.0, abs=0.01)
    assert bill.lives == ["short"] * 5
