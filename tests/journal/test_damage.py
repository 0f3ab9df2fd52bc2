"""An envelope that was changed in the file: whatever the change, the check names its event, and nothing crashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from stanchion import Agent, Runtime
from stanchion.core.errors import BrokenChain
from stanchion.journal.record import verify
from stanchion.journal.sqlite import SqliteStore
from stanchion.testing import ScriptedModel


async def test_every_byte_of_an_envelope(tmp_path: Path) -> None:
    """Each byte of a stored envelope changed in two ways: the third event is named each time."""
    agent = Agent(name="a", model="anthropic:claude-sonnet-4-6")
    path = tmp_path / "t.db"
    async with await Runtime.open(agent, data=path, clients={"*": ScriptedModel(["Hello."])}) as runtime:
        run = (await runtime.start("a", "Hi.")).run
        await runtime.wait(run)
    connection: Any = apsw.Connection(str(path))
    stored = connection.execute("SELECT envelope FROM events WHERE seq = 3").fetchone()[0]
    store = await SqliteStore.open(path)
    salts = {key.id: key.salt for key in await store.keys("default")}
    envelope = (await store.raw("default", run))[2].envelope
    for place in range(len(stored)):
        for bit in (1, 0x80):
            changed = bytearray(stored)
            changed[place] ^= bit
            connection.execute("UPDATE events SET envelope = ? WHERE seq = 3", (bytes(changed),))
            records = await store.raw("default", run)
            if records[2].envelope == envelope:
                continue  # bits behind the end of the deflated stream say nothing
            with pytest.raises(BrokenChain) as found:
                verify("default", run, records, salts)
            assert found.value.seq == 3
    connection.close()
    await store.aclose()
