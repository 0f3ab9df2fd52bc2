"""Journals of every released version fold to what they folded to when they were written, for ever (I11)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from stanchion.core import event as ev
from stanchion.core.charge import charges
from stanchion.core.fold import carry, fold
from stanchion.core.state import State
from stanchion.journal.record import read_entry, read_outline, verify
from tests.golden.make import read, summary

HERE = Path(__file__).parent
VERSIONS = sorted(folder.name for folder in HERE.iterdir() if (folder / "summary.json").exists())
JOURNALS = [(version, path.stem) for version in VERSIONS for path in sorted((HERE / version).glob("*.jsonl"))]


def told(version: str) -> dict[str, Any]:
    return json.loads((HERE / version / "summary.json").read_text(encoding="utf-8"))


def folded(version: str, name: str) -> State:
    """The state of a golden journal, on those of its session before it."""
    head, records = read(HERE / version / f"{name}.jsonl")
    base = State()
    if head["base"]:
        before = next(n for v, n in JOURNALS if v == version and is_run(v, n, head["base"]))
        base = carry(folded(version, before))
    return fold((read_entry(record) for record in records), base)


def is_run(version: str, name: str, run: str) -> bool:
    """Whether this is the run that a session goes on from; of those with its id, the one that is named for it."""
    return name == "everything" and read(HERE / version / f"{name}.jsonl")[0]["run"] == run


@pytest.mark.parametrize(("version", "name"), JOURNALS)
def test_a_golden_journal_folds_as_ever(version: str, name: str) -> None:
    """What happened, what was said, what it cost, what waits."""
    assert summary(folded(version, name)) == told(version)["runs"][name]


@pytest.mark.parametrize(("version", "name"), JOURNALS)
def test_what_a_golden_journal_paid_adds_up(version: str, name: str) -> None:
    """Without its contents: each cost is one charge, and their sum is what the run cost."""
    _, records = read(HERE / version / f"{name}.jsonl")
    found = list(charges((read_outline(record.seq, record.envelope) for record in records), {}))
    assert sum(charge.cost for charge in found) == folded(version, name).totals.cost


@pytest.mark.parametrize(("version", "name"), JOURNALS)
def test_a_golden_journal_verifies_as_ever(version: str, name: str) -> None:
    """The bytes that were hashed are the bytes that are read."""
    head, records = read(HERE / version / f"{name}.jsonl")
    key = told(version)
    found = verify(head["tenant"], head["run"], records, {key["key"]: bytes.fromhex(key["salt"])})
    assert found.events == len(records)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_journals_of_a_version_hold_every_type_of_its_events(version: str) -> None:
    """So that none of them can be forgotten. A type that came later is in a later version's journals."""
    types = {type(read_entry(record).event) for path in (HERE / version).glob("*.jsonl") for record in read(path)[1]}
    if version == VERSIONS[-1]:
        assert types == set(get_args(ev.Event))
    assert len(told(version)["runs"]) == len(list((HERE / version).glob("*.jsonl"))) > 10
