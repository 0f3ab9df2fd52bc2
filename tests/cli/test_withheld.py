"""A terminal that watches a run whose text is withheld until its end."""

from __future__ import annotations

from typing import Any

import pytest

from stanchion.cli.show import Screen


def said(seq: int, kind: str, text: str, **more: Any) -> dict[str, Any]:
    """Make an event that says something, as a client is told it."""
    return {
        "seq": seq,
        "type": kind,
        "at_ms": 0,
        "turn": 1,
        "attempt": 1,
        "parts": [{"type": "text", "text": text}],
        **more,
    }


@pytest.mark.parametrize(("held", "shown"), [(True, "It was bob.\n"), (False, "It was {{r1.who}}.\n")])
def test_the_answer_is_shown_once(held: bool, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What the model wrote with references is not shown, what was filled in is; a run that withholds nothing shows the former."""
    screen = Screen()
    screen.live = True
    screen.event(said(1, "model_call_finished", "It was {{r1.who}}.", **({"held": True} if held else {})))
    screen.event(said(2, "run_finished", "It was bob."))
    assert capsys.readouterr().out == shown


def test_an_answer_behind_one_that_was_not_taken_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A cheap model's try is withheld; the agent's own model then says it for all to see, and the end does not say it again."""
    screen = Screen()
    screen.live = True
    screen.event(said(1, "model_call_finished", "", held=True))
    screen.event(
        said(2, "answer_judged", "I am not shown that.", action="escalate", by="self", model="p:m", step="lookup")
    )
    screen.event(said(3, "model_call_finished", "It was bob.", attempt=2))
    screen.event(said(4, "run_finished", "It was bob."))
    shown = capsys.readouterr()
    assert shown.out == "It was bob.\n"
    assert "answer_judged" in shown.err
    assert "action=escalate" in shown.err
