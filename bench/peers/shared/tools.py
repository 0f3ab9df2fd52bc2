"""The tools of the agent, the same for every framework: a read, a write with a key, a write without one.

The writes go to a witness over HTTP, which counts them and deduplicates only what has a key. Standard library only.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

IDENTITY = "You support customers. " + "the order was packed on monday and left our house by truck before noon " * 10
LINES = [{"sku": f"SKU-{n:05}", "title": "A thing of good make", "qty": n % 4 + 1} for n in range(9)]
MODEL = "claude-sonnet-4-6"
MAX_OUTPUT_TOKENS = 400
_THREADS = ThreadPoolExecutor(64)
"""The event loop's own has six on two cores: no more writes than that could be under way at once."""


async def look_up(order: str) -> str:
    """Read: 560 bytes about an order."""
    return json.dumps({"order": order, "lines": LINES})


async def pay_back(order: str, key: str) -> str:
    """Write with a key: the receiver does nothing the second time it sees it."""
    return await _in_thread(f"refund:{order}", order, key)


async def write_note(order: str) -> str:
    """Write without a key."""
    return await _in_thread(f"note:{order}", order, "")


async def _in_thread(call: str, order: str, key: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _effect, call, order, key)


def _effect(call: str, order: str, key: str) -> str:
    connection = http.client.HTTPConnection(urlsplit(os.environ["WITNESS"]).netloc, timeout=120)
    try:
        body = {"case": order.partition("/")[0], "call": call, "key": key}
        connection.request("POST", "/effect", json.dumps(body), {"Content-Type": "application/json"})
        connection.getresponse().read()
    finally:
        connection.close()
    return f"{call} done"
