"""The report of the comparison with peers: medians, tables, what it says where a peer is better, plots, and the marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench.peers.__main__ import NUMBERS, plan
from bench.peers.peers import BY_NAME, HERE, PEERS
from bench.peers.plot import Bar, Line, bars, lines, number
from bench.peers.publish import BEGIN, END, draw, placed, publish
from bench.peers.report import better, page
from bench.peers.results import Results, read, spread

EVERY = {part for parts in NUMBERS.values() for part in parts}


def cpu(ms: float) -> dict[str, Any]:
    """A cell of the first comparison."""
    return {n: {"cpu_ms": ms, "turns_per_s_core": 1e3 / ms, "database_cpu_ms": 1.0} for n in ("1", "10", "100")}


def killed(*, repeated: int, waiting: int = 0, itself: int = 2) -> dict[str, Any]:
    """A cell of the kills."""
    keyed = {"runs": 1, "repeated": 0, "asked_again": 1, "done": 1, "waiting": 0, "failed": 0, "open": 0}
    note = {**keyed, "repeated": repeated, "done": 1 - waiting, "waiting": waiting}
    return {
        "runs": 2, "by_itself": itself, "by_hand": 2 - itself, "calls_again": 0, "seconds": 2.5 if itself else None,
        "note": note, "refund": keyed,
    }  # fmt: skip


def some() -> Results:
    """A small set of two frameworks."""
    cells = {
        "cpu/stanchion/0": cpu(4.0), "cpu/stanchion/1": cpu(6.0), "cpu/agno/0": cpu(20.0), "cpu/agno/1": cpu(24.0),
        "first/stanchion/0": {"bare_ms": 20.0, "first_ms": 25.0, "added_ms": 5.0},
        "first/agno/0": {"bare_ms": 20.0, "first_ms": 21.0, "added_ms": 1.0},
        "kill/stanchion/0": killed(repeated=0, waiting=1), "kill/agno/0": killed(repeated=1, itself=0),
        "spend/stanchion/0": {"200": {"spent_usd": 0.95}}, "spend/agno/0": {"200": {"spent_usd": 1.6}},
        "bytes/stanchion/0": {
            **{n: {"bytes": 1000 * int(n), "empty": 500} for n in ("10", "100", "1000")},
            "many": {"runs": 100, "bytes_per_run": 7_000.0},
        },
        "bytes/agno/0": {
            "10": {"bytes": 9_000, "empty": 400},
            "100": {"bytes": 800_000, "empty": 400},
            "1000": {"gave_up": "no answer in 100 s", "calls": 612, "bytes": 50_000_000},
        },
        "streams/agno/0": {"error": "SubjectFailed: it ended"},
    }  # fmt: skip
    return Results(machine={"cores": 2}, versions={"agno": {"agno": "3.1"}}, cells=cells)


def test_a_figure_is_its_median_and_its_ends() -> None:
    """Of all repeats that were measured; nothing of none."""
    assert spread([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0, 3)
    assert spread([]) is None
    found = some().figure("cpu", "agno", "10", "cpu_ms")
    assert found is not None
    assert (found.median, found.low, found.high, found.repeats) == (22.0, 20.0, 24.0, 2)
    assert some().figure("cpu", "agno", "10", "no such figure") is None


def test_numbers_have_three_digits() -> None:
    """Large ones are whole, with their thousands apart."""
    assert [number(value) for value in (0, 0.01234, 5.678, 56.78, 567.8, 56_789)] == [
        "0", "0.0123", "5.68", "56.8", "568", "56,789",
    ]  # fmt: skip


def test_the_tables_show_every_framework_and_what_could_not_be_measured() -> None:
    """Spread where there are repeats, a run that was given up as such, a failed cell by its name."""
    text = page(some())
    assert "| Agno, checkpoint=tool-batch | 22 (20 to 24) |" in text
    assert "50,000 after 612 steps; given up" in text
    assert "| Stanchion | 0.5 | 7 | 10 | 100 | 1,000 |" in text
    assert "1 of 1" in text
    assert "**$1.600**" in text
    assert "by hand only" in text
    assert "`streams/agno/0`: SubjectFailed: it ended" in text


def test_where_a_peer_is_better_it_is_said() -> None:
    """A better median is named with both figures; a worse one is not."""
    said = "\n".join(better(some()))
    assert "**added time to the first token** (ms; Stanchion 5): Agno, checkpoint=tool-batch 1." in said
    assert "without a person: Agno, checkpoint=tool-batch (1 of 1 written twice)" in said
    assert "bytes stored at 10 steps" in said
    assert "bytes stored at 1,000 steps" not in said
    assert "CPU of a turn" not in said


def test_where_no_peer_is_better_that_is_said_too() -> None:
    """A set of ours alone."""
    assert "Nothing in this set" in better(Results(cells={"cpu/stanchion/0": cpu(4.0)}))[0]


def test_plots_are_whole_and_tell_what_they_show() -> None:
    """Each is well-formed, with its title and labels, and nothing that a label could break."""
    drawn = draw(some())
    assert {"cpu", "concurrency", "bytes", "spend", "first-token"} == set(drawn)
    drawn["bars"] = bars("A < B", "ms", [Bar("ours & theirs", 1, 0.5, 2, True), Bar("other", 3, 3, 3)], mark=2)
    drawn["lines"] = lines("L", "x", "y", [Line("a", [(1, 10), (10, 1000)]), Line("b", [(1, 10), (10, 1000)])])
    for svg in drawn.values():
        root = ET.fromstring(svg)
        assert root.findtext("{http://www.w3.org/2000/svg}title")
    assert "ours &amp; theirs" in drawn["bars"]


def test_labels_at_one_place_do_not_cover_each_other() -> None:
    """Two lines that end at the same value."""
    root = ET.fromstring(lines("L", "x", "y", [Line("a", [(1, 10)]), Line("b", [(1, 10)])]))
    texts = {text.text: float(text.attrib["y"]) for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert abs(texts["a"] - texts["b"]) >= 15


def test_the_part_of_the_page_is_put_between_its_marks(tmp_path: Path) -> None:
    """Again and again, without touching what stands around it; and with its plots and the set beside it."""
    assert placed("# Page\n", "x") == f"# Page\n\n{BEGIN}\nx\n{END}\n"
    assert placed(f"a\n{BEGIN}\nold\n{END}\nb\n", "new") == f"a\n{BEGIN}\nnew\n{END}\nb\n"
    (tmp_path / "BENCHMARKS.md").write_text("# Benchmarks\n")
    publish(some(), tmp_path)
    text = (tmp_path / "BENCHMARKS.md").read_text()
    assert "![bytes](bench/peers/plots/bytes.svg)" in text
    assert (tmp_path / "bench/peers/plots/bytes.svg").is_file()
    assert read(tmp_path / "bench/peers/results.json").cells == some().cells


def test_a_set_that_was_broken_off_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    """Measured cells are kept, failed ones are measured again, repeats are interleaved."""
    peers = [BY_NAME["stanchion"], BY_NAME["agno"]]
    whole = plan({"cpu", "first"}, peers, 2, Results())
    assert [(task.peer.name, task.repeat, task.parts) for task in whole] == [
        ("stanchion", 0, ("cpu", "first")), ("agno", 0, ("cpu", "first")),
        ("agno", 1, ("cpu", "first")), ("stanchion", 1, ("cpu", "first")),
    ]  # fmt: skip
    some().write(tmp_path / "set.json")
    kept = read(tmp_path / "set.json")
    left = plan({"cpu", "first", "streams"}, peers, 2, kept)
    assert {(task.peer.name, task.repeat, task.parts) for task in left} == {
        ("stanchion", 1, ("first",)), ("agno", 1, ("first",)), ("agno", 0, ("streams",)), ("stanchion", 0, ("streams",)),
    }  # fmt: skip


def test_every_comparison_is_measured_for_every_framework_that_has_it() -> None:
    """The plan of a whole set leaves out only what a framework has another configuration for."""
    tasks = plan(EVERY, list(PEERS), 1, Results())
    for part in ("cpu", "crowd", "bytes", "kill", "spend", "first", "memory", "streams"):
        named = {task.peer.folder for task in tasks if part in task.parts}
        assert named == {peer.folder for peer in PEERS}, part


@pytest.mark.parametrize("folder", sorted({peer.folder for peer in PEERS} - {"stanchion"}))
def test_requirements_are_exact_and_name_no_index(folder: str) -> None:
    """Every line pins one version."""
    pins = [
        line
        for line in (HERE / folder / "requirements.txt").read_text().splitlines()
        if not line.lstrip().startswith("#")
    ]
    assert pins
    assert all("==" in line and "://" not in line and not line.startswith("-") for line in pins)
