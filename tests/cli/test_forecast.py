"""`stanchion forecast` on a data file and on a server, and what a run that is under way is said to come to."""

from __future__ import annotations

import json

import pytest

from stanchion.cli.main import call
from stanchion.cli.show import forecast_text
from tests.cli.conftest import Served
from tests.cli.test_costs import data

__all__ = ["data"]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = call(["forecast", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_store_tells_by_the_shape_where_there_are_few_runs(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs are too few; the range is said to be one of assumptions, and which."""
    code, out, _ = said(capsys, "desk", "--data", data)
    assert code == 0
    assert "assumed, between" in out
    assert "6 turns on anthropic:claude-sonnet-4-6" in out
    code, out, _ = said(capsys, "desk", "--turns", "15", "--prefix-tokens", "60000", "-o", "json", "--data", data)
    report = json.loads(out)
    assert code == 0
    assert (report["runs"], report["coverage"], report["after_turns"]) == (0, 0.0, 0)
    assert "15 turns" in report["note"]
    assert "first request of 60,000 tokens" in report["note"]


def test_bad_questions_are_refused(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An agent that nobody knows; a number out of bounds; a file that is not there."""
    code, _, err = said(capsys, "nobody", "--data", data)
    assert code != 0
    assert "there is no agent 'nobody' here, and no run of it" in err
    code, _, err = said(capsys, "desk", "--turns", "0", "--data", data)
    assert code == 2
    assert "--turns" in err
    code, _, err = said(capsys, "desk", "--data", f"{data}.gone")
    assert code != 0
    assert "there is no data file" in err


def test_a_server_tells_the_same(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """Over HTTP: of the agent that it serves; the input goes by its length."""
    code, short, _ = said(capsys, "support", "--input", "hi", "--url", served.url, "-o", "json")
    assert code == 0
    code, long, _ = said(capsys, "support", "--input", "hi " * 40_000, "--url", served.url, "-o", "json")
    assert code == 0
    assert float(json.loads(long)["usd"]) > float(json.loads(short)["usd"]) > 0


def test_a_forecast_in_words() -> None:
    """By past runs with what the range holds, by assumptions without; nothing where there is none."""
    told = {"usd": "0.05", "low_usd": "0.02", "high_usd": "0.09", "coverage": 0.9, "runs": 40}
    assert forecast_text(told) == "$0.05 (90 % within $0.02 and $0.09 by 40 past runs)"
    assert forecast_text({**told, "runs": 0, "coverage": 0.0}) == "$0.05 (assumed, between $0.02 and $0.09)"
    assert forecast_text(None) == ""
