"""The subjects work: each drives runs to their end in its own environment. Skipped where the environments are not made.

`python -m bench.peers --short` makes them.
"""

from __future__ import annotations

import pytest

from bench.peers.peers import BY_NAME, PEERS, Peer
from bench.peers.work import script
from bench.peers.world import SubjectFailed, world
from stanchion.testing.postgres import NoPostgres

TWO = [
    BY_NAME["stanchion"],
    next((peer for peer in PEERS if peer.folder != "stanchion" and peer.ready), BY_NAME["agno"]),
]
"""Ours, and a peer: each of them costs seconds to start, so the others are left to `python -m bench.peers --short`."""


@pytest.mark.parametrize("peer", TWO, ids=lambda peer: peer.name)
async def test_a_subject_drives_runs_to_their_end(peer: Peer) -> None:
    """All turns are asked for, all text comes, the run is stored as done, and a wrong order is answered with its reason."""
    if not peer.ready:
        pytest.skip(f"no environment .peers/{peer.folder}; `python -m bench.peers --short` makes it")
    try:
        async with world() as shared:
            await shared.play(script(2, events=1, gap_s=0))  # answers that are over before a reader looks
            async with shared.subject(peer) as (running, dsn):
                empty = await shared.stored_bytes(dsn)
                cost = await running.ask("runs", names=["a", "b"], at_once=2)
                assert (cost["failed"], cost["failures"], cost["runs"]) == (0, [], 2)
                assert cost["chars"] >= 2 * 2 * 700
                assert cost["cpu_s"] > 0
                assert (await running.ask("states", names=["a", "b"]))["states"] == {"a": "done", "b": "done"}
                assert (await shared.bill())["requests"] == 4
                assert await shared.stored_bytes(dsn) > empty
                with pytest.raises(SubjectFailed, match="do_dance"):
                    await running.ask("dance")
    except NoPostgres:
        pytest.skip("no PostgreSQL to start")
