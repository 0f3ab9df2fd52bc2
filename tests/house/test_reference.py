"""The committed reference is what the code says, and the code says something of everything."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import pytest
import typer

from scripts import make_reference

TYPER = typer.Typer()


@pytest.mark.parametrize("page", sorted(make_reference.WRITERS))
def test_the_reference_is_current_and_complete(page: str) -> None:
    """Nothing stale, nothing undocumented: `make reference` mends the first, a docstring the second."""
    assert make_reference.problems_of(page, write=False) == []


class Heard(msgspec.Struct, tag="heard"):
    """Something was heard."""

    what: str
    loud: Literal["yes", "no"] = "no"
    """Whether it was | loud."""


class Unsaid(msgspec.Struct, tag="unsaid"):
    what: str


def test_an_event_without_a_word_is_found() -> None:
    """A class's docstring and the string below a field are the documentation; without the first it is a problem."""
    page = make_reference.events_page(Heard | Unsaid)
    assert page.undocumented == ["event Unsaid"]
    assert "| `loud` | `Literal['yes', 'no']` | `'no'` | Whether it was \\| loud. |" in page.lines


@TYPER.command("say")
def say(word: str = typer.Argument(help="What to say."), twice: bool = typer.Option(False, "--twice")) -> None:
    """Say a word.

    Example:

        say hello
    """


@TYPER.command("shout")
def shout() -> None: ...


def test_a_command_or_option_without_help_is_found() -> None:
    """Every command and every option says what it does; examples are fenced."""
    page = make_reference.cli_page(TYPER)
    assert page.undocumented == ["command stanchion", "stanchion say: --twice", "command stanchion shout"]
    assert "| `WORD` | required | What to say. |" in page.lines
    assert "say hello" in page.lines


class Knobs(msgspec.Struct):
    """How it is set."""

    port: int = 1
    """Where."""
    speed: int = 2


def test_a_setting_without_a_word_is_found() -> None:
    """Every setting says what it sets."""
    assert make_reference.config_page(Knobs).undocumented == ["setting speed"]


def test_a_page_whose_source_is_gone_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that is not written yet is left out; one that was documented and is gone is an error."""
    monkeypatch.setattr(make_reference, "PAGES", tmp_path)
    monkeypatch.setitem(make_reference.WRITERS, "cli", ("stanchion.nowhere.at:all", make_reference.cli_page))
    assert make_reference.problems_of("cli", write=True) == []
    (tmp_path / "cli.md").write_text("old")
    assert make_reference.problems_of("cli", write=False) == [
        "cli.md is committed and its source stanchion.nowhere.at:all is gone"
    ]
