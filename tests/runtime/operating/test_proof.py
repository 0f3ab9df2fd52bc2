"""What `verify` finds: a changed byte, a cut end, a deleted run. Each by name, the first bad event first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from stanchion.core.errors import NotFound
from stanchion.runtime import VerifiedRun
from tests.engine.rig import agent, once, over, running

Change = Callable[[apsw.Connection], Any]


async def prepared(folder: Path) -> list[str]:
    """Make three runs of a session, and one of another."""
    async with running(folder, once("look", order="A-17"), agent()) as runtime:
        runs = [(await runtime.start("desk", f"Question {n}", session="s")).run for n in range(1)]
        await over(runtime, runs[0])
        for number in (1, 2):
            runs.append((await runtime.start("desk", f"Question {number}", session="s")).run)
            await over(runtime, runs[-1])
        runs.append((await runtime.start("desk", "Question", session="t")).run)
        await over(runtime, runs[-1])
        return runs


async def found(folder: Path) -> dict[str, VerifiedRun]:
    """Verify all, and give what is wrong: by run, and by "session" what is wrong with a session."""
    async with running(folder, once("look", order="A-17"), agent(), drive=False) as runtime:
        wrong = [v async for v in runtime.verify() if v.error]
        return {"session" if v.error.startswith("session ") else v.run: v for v in wrong}


def change(folder: Path, sql: str, *values: Any) -> None:
    connection = apsw.Connection(str(folder / "t.db"))
    connection.execute(sql, values)
    assert connection.changes() == 1
    connection.close()


NO = "(SELECT no FROM runs WHERE run = ?)"


async def test_untouched(tmp_path: Path) -> None:
    """Nothing is wrong with what nobody touched."""
    runs = await prepared(tmp_path)
    assert await found(tmp_path) == {}
    async with running(tmp_path, once("look", order="A")) as runtime:
        (one,) = [v async for v in runtime.verify(runs[1])]
        assert (one.run, one.error, one.erased, one.events >= 4) == (runs[1], "", 0, True)
        with pytest.raises(NotFound):
            await anext(runtime.verify("run_none"))


async def test_a_changed_byte_of_an_event(tmp_path: Path) -> None:
    """One bit of one envelope: the event is named."""
    runs = await prepared(tmp_path)
    connection = apsw.Connection(str(tmp_path / "t.db"))
    row: Any = connection.execute(f"SELECT envelope FROM events WHERE seq = 3 AND run = {NO}", (runs[1],)).fetchone()
    connection.close()
    body = bytearray(row[0])
    body[-5] ^= 1
    change(tmp_path, f"UPDATE events SET envelope = ? WHERE seq = 3 AND run = {NO}", bytes(body), runs[1])
    wrong = await found(tmp_path)
    assert set(wrong) == {runs[1]}
    assert wrong[runs[1]].bad_seq == 3


async def test_a_changed_content(tmp_path: Path) -> None:
    """A changed text is found, though it lies apart from its event."""
    runs = await prepared(tmp_path)
    change(tmp_path, "UPDATE contents SET blob = ? WHERE blob = ?", b"Question 7", b"Question 2")
    wrong = await found(tmp_path)
    assert (set(wrong), wrong[runs[2]].bad_seq) == ({runs[2]}, 1)


async def test_the_last_event_deleted(tmp_path: Path) -> None:
    """A journal whose end was cut off is shorter than its run's row says."""
    runs = await prepared(tmp_path)
    change(
        tmp_path,
        f"DELETE FROM events WHERE run = {NO} AND seq = (SELECT max(seq) FROM events WHERE run = {NO})",
        runs[3],
        runs[3],
    )
    wrong = await found(tmp_path)
    assert set(wrong) == {runs[3]}
    assert "cut off" in wrong[runs[3]].error


async def test_an_event_deleted_in_the_middle(tmp_path: Path) -> None:
    """A gap is found where it begins."""
    runs = await prepared(tmp_path)
    change(tmp_path, f"DELETE FROM events WHERE seq = 4 AND run = {NO}", runs[0])
    wrong = await found(tmp_path)
    assert wrong[runs[0]].bad_seq == 4


@pytest.mark.parametrize("which", [0, 1, 2, 3])
async def test_a_run_deleted(tmp_path: Path, which: int) -> None:
    """A run whose row is gone is missed by the run that went on from it, and by its session."""
    runs = await prepared(tmp_path)
    change(tmp_path, "DELETE FROM runs WHERE run = ?", runs[which])
    wrong = await found(tmp_path)
    assert "1 of them are gone" in wrong["session"].error
    if which < 2:
        assert f"goes on from run {runs[which]}, which is gone" in wrong[runs[which + 1]].error


async def test_a_run_replaced(tmp_path: Path) -> None:
    """Moving a row's head is found by the run itself, and by what was built on it."""
    runs = await prepared(tmp_path)
    change(tmp_path, "UPDATE runs SET hash = ? WHERE run = ?", b"\0" * 32, runs[0])
    wrong = await found(tmp_path)
    assert runs[0] in wrong
