"""Checks of a store: the relay between its processes, where it has one."""

from __future__ import annotations

import asyncio

from stanchion.journal.relay import Letter
from stanchion.journal.store import Store
from stanchion.testing.store_driver import same, true

HEARD_S = 10.0
_TEXTS = ("a", "äöü ✂ \U0001f600", '"quoted\\\n" \t', "")


async def what_is_sent_on_the_relay_is_heard_in_order(store: Store) -> None:
    """Letters of any text and full length come as they were sent, to all and to one by name; a store may have no relay."""
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    wire = store.relay(heard.put_nowait)
    if wire is None:
        return
    texts = [*_TEXTS, "ä" * (wire.limit_bytes // 2), *(f"letter {number}" for number in range(100))]
    letters = [Letter(wire.name if number % 2 else "", text) for number, text in enumerate(texts)]
    letters.insert(1, Letter("another", "not for us"))
    true(await wire.send(letters), "the letters were sent")
    async with asyncio.timeout(HEARD_S):
        for text in texts:
            same(await heard.get(), text, "what was heard next")


CHECKS = (what_is_sent_on_the_relay_is_heard_in_order,)
