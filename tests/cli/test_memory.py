"""`stanchion memory`, on a data file and over HTTP: the same commands say the same."""

from __future__ import annotations

import msgspec
import pytest

from tests.cli.conftest import Cli, Served

USER = ("--user", "ann")


@pytest.fixture(params=["file", "server"])
def where(request: pytest.FixtureRequest) -> tuple[Cli, tuple[str, ...]]:
    """The command line, and how it names the place that it works on."""
    if request.param == "file":
        cli: Cli = request.getfixturevalue("cli")
        cli.json("shares", "set", "--weight", "1", "--data", "t.db")  # (makes the file)
        return cli, ("--data", "t.db")
    served: Served = request.getfixturevalue("served")
    return served.cli, ("--url", served.url)


def test_a_fact_is_written_read_corrected_and_forgotten(where: tuple[Cli, tuple[str, ...]]) -> None:
    """From the first to the last command, in both times."""
    cli, place = where
    assert cli.json("memory", "ls", *place) == []
    first = ("memory", "add", "home city", "Lisbon", *USER, "--space", "desk", "--since", "2026-01-01", *place)
    made = cli.json(*first)
    assert (made["trust"], made["source"], made["value"], made["valid_to_ms"]) == ("trusted", "reviewer", "Lisbon", 0)
    cli.json("memory", "add", "home city", "Porto", *USER, "--space", "desk", "--since", "2026-03-01", *place)
    held = {
        day: [row["value"] for row in cli.json("memory", "ls", *USER, "--as-of", day, *place)]
        for day in ("2025-12-31", "2026-02-28", "2026-03-01")
    }
    assert held == {"2025-12-31": [], "2026-02-28": ["Lisbon"], "2026-03-01": ["Porto"]}
    assert cli.json("memory", "ls", *USER, "--known-at", "2025-12-31", *place) == []
    (porto,) = cli.json("memory", "ls", *USER, "--query", "which city", *place)
    fixed = cli.json("memory", "edit", porto["id"], "Braga", *USER, *place)
    assert fixed["value"] == "Braga"
    assert cli.call("memory", "edit", porto["id"], "Faro", *USER, *place).returncode != 0
    shown = cli.call("memory", "show", fixed["id"], *USER, *place).stdout
    assert "user: home city = Lisbon" in shown
    assert "edited" in shown
    lines = cli.call("memory", "export", *USER, *place).stdout.splitlines()
    exported = [msgspec.json.decode(line) for line in lines]
    assert {row["value"] for row in exported} == {"Lisbon", "Porto", "Braga"}
    assert [row["user"] for row in cli.json("memory", "ls", *place)] == ["ann"]
    cli.json("memory", "retract", fixed["id"], *USER, *place)
    assert [row["why"] for row in cli.json("memory", "show", fixed["id"], *USER, *place)][-1] == "retracted"
    done = cli.json("memory", "forget", *USER, "--id", fixed["id"], *place)
    assert done == {"versions": len(exported), "journals": False}
    assert cli.json("memory", "forget", *USER, *place) == {"versions": 0, "journals": False}
    assert cli.json("memory", "ls", *place) == []


def test_what_cannot_be_done_is_one_line(where: tuple[Cli, tuple[str, ...]]) -> None:
    """It names the field, and says what to do."""
    cli, place = where
    for words, said in (
        (("show", "fact_x", *USER), "nothing is remembered of this user as 'fact_x'"),
        (("forget", *USER, "--id", "fact_x"), "nothing is remembered of this user as 'fact_x'"),
        (("edit", "fact_x", "y", *USER), "nothing is remembered of this user"),
        (("retract", "fact_x", *USER), "nothing is remembered of this user"),
        (("ls", "--user", "a b"), "user"),
        (("ls", *USER, "--as-of", "March"), "2026-03-31"),
        (("add", "a1", "x", *USER, "--space", "desk"), "attribute"),
        (("add", "city", " ", *USER, "--space", "desk"), "value"),
        (("add", "city", "x", *USER, "--space", "desk", "--since", "2026-02-01", "--until", "2026-01-01"), "--until: "),
        (("add", "city", "x", *USER, "--space", "desk", "--until", "2020-01-01"), "to_ms: must lie behind from_ms"),
    ):
        done = cli.call("memory", *words, *place)
        assert done.returncode not in (0, 1), (words, done.stderr)
        assert said in done.stderr, words
        assert len(done.stderr.splitlines()) == 1
