"""A server process for tests: `python process.py DATA [GRACE_S]`. Prints its address; its model never finishes."""

from __future__ import annotations

import asyncio
import sys

from stanchion.runtime import Runtime
from stanchion.server.serve import new_event_loop, serve
from tests.server.serving import HeldModel, agent


async def main(data: str, grace_s: float) -> None:
    """Serve."""
    runtime = await Runtime.open(agent(), data=data, clients={"*": HeldModel()})
    await serve(runtime, port=0, grace_s=grace_s, ready_callback=lambda address: print(address, flush=True))


with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main(sys.argv[1], float(sys.argv[2])))
