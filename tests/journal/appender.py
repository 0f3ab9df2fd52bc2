"""A process that appends to a store until it is killed, and says what was acknowledged. Run by `test_kill.py`.

    python appender.py PATH NAME

One line per acknowledged append, "run seq", each written at once.
"""

from __future__ import annotations

import asyncio
import os
import sys

from stanchion.journal.sqlite import SqliteStore
from stanchion.testing.store_driver import Driver, said


async def main(path: str, name: str) -> None:
    store = await SqliteStore.open(path)

    async def live(number: int) -> None:
        driver = await Driver.driving(store, f"{name}.{number}")
        while True:
            await driver.append(said(f"{driver.run} {driver.recorder.seq} " * 30), said("same"))
            os.write(1, f"{driver.run} {driver.recorder.seq}\n".encode())

    await asyncio.gather(*(live(number) for number in range(8)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
