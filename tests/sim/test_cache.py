"""The prefix cache bills as the providers' rules say: what is read, what is written, how long it lives, what is too small."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from stanchion.core.caching import CacheRules, cache_rules
from stanchion.sim import SimServer, SimSettings
from stanchion.sim.cache import Found, PrefixCache
from stanchion.sim.tokens import Piece

MARKED = CacheRules("anthropic", "marked", 1_000, marks=4, lookback=20)
AUTOMATIC = CacheRules("openai", "automatic", 1_024, step=128, long_s=86_400)
SONNET = "claude-sonnet-4-6"


def pieces(*sizes: int, marks: dict[int, str] | None = None) -> list[Piece]:
    """Pieces of so many tokens; each has its own content, by its place and size."""
    marked = marks or {}
    return [Piece("message", size, f"{n}/{size}".encode(), marked.get(n, "")) for n, size in enumerate(sizes)]


def test_what_was_marked_is_read_and_the_rest_up_to_the_mark_is_written() -> None:
    """A conversation that grows: each request reads all of the one before and writes what is new."""
    cache = PrefixCache()
    assert cache.use("k", pieces(2_000, 100, marks={1: "5m"}), MARKED, 0) == Found(0, 0, 2_100)
    assert cache.use("k", pieces(2_000, 100, 50, 60, marks={3: "5m"}), MARKED, 10) == Found(0, 2_100, 110)
    assert cache.use("k", pieces(2_000, 100, 50, 60, 70), MARKED, 20) == Found(2_280), "nothing marked, nothing read"


def test_another_prefix_key_or_model_reads_nothing() -> None:
    """One block that differs at the beginning, or somebody else's key."""
    cache = PrefixCache()
    cache.use("k", pieces(2_000, 100, marks={1: "5m"}), MARKED, 0)
    assert cache.use("other", pieces(2_000, 100, marks={1: "5m"}), MARKED, 1).read == 0
    assert cache.use("k", pieces(2_001, 100, marks={1: "5m"}), MARKED, 1).read == 0


def test_twenty_blocks_are_looked_back() -> None:
    """Further back nothing is found, unless another mark stands in between."""
    sizes = [2_000, *[10] * 25]
    for blocks, read in ((19, 2_000), (20, 0)):
        cache = PrefixCache()
        cache.use("k", pieces(2_000, marks={0: "5m"}), MARKED, 0)
        assert cache.use("k", pieces(*sizes[: blocks + 1], marks={blocks: "5m"}), MARKED, 1).read == read
    cache = PrefixCache()
    cache.use("k", pieces(2_000, marks={0: "5m"}), MARKED, 0)
    assert cache.use("k", pieces(*sizes, marks={12: "5m", 25: "5m"}), MARKED, 1).read == 2_000


def test_lives_end_and_are_renewed_by_use() -> None:
    """Five minutes from the last use; an hour for what was marked so."""
    cache = PrefixCache()
    row = pieces(2_000, 500, marks={0: "1h", 1: "5m"})
    assert cache.use("k", row, MARKED, 0) == Found(0, 0, 500, 2_000)
    assert cache.use("k", row, MARKED, 299).read == 2_500
    assert cache.use("k", row, MARKED, 299 + 301) == Found(0, 2_000, 500)
    assert cache.use("k", row, MARKED, 600 + 3_601).read == 0


def test_what_is_too_small_is_not_kept() -> None:
    """Below the minimum a mark is ignored, and costs nothing."""
    cache = PrefixCache()
    assert cache.use("k", pieces(999, marks={0: "5m"}), MARKED, 0) == Found(999)
    assert cache.use("k", pieces(999, marks={0: "5m"}), MARKED, 1) == Found(999)


def test_an_automatic_cache_reads_in_steps() -> None:
    """The longest whole prefix, in multiples of 128, from 1,024 on; writes count where they are priced."""
    cache = PrefixCache()
    assert cache.use("k", pieces(1_500), AUTOMATIC, 0, writes=False) == Found(1_500)
    assert cache.use("k", pieces(1_500, 300), AUTOMATIC, 1, writes=False) == Found(1_800 - 1_408, 1_408)
    assert cache.use("k", pieces(1_500, 300), AUTOMATIC, 302, writes=True) == Found(1_800 - 1_792, 0, 1_792)
    assert cache.use("k", pieces(1_000), AUTOMATIC, 303, writes=True) == Found(1_000)
    cache.use("k", pieces(5_000), AUTOMATIC, 400, long=True)
    assert cache.use("k", pieces(5_000), AUTOMATIC, 80_000).read == 4_992


@pytest.mark.parametrize(
    ("provider", "model", "minimum"),
    [("anthropic", SONNET, 2_048), ("anthropic", "claude-haiku-4-5", 4_096), ("anthropic", "claude-opus-4-6", 4_096),
     ("anthropic", "claude-sonnet-4-5", 1_024), ("openai", "gpt-5.2", 1_024)],
)  # fmt: skip
def test_rules_by_model(provider: str, model: str, minimum: int) -> None:
    """Each family has its own smallest prefix."""
    rules = cache_rules(provider, model)
    assert rules is not None
    assert rules.minimum == minimum


async def test_the_bill_is_in_money_and_the_clock_can_be_put_forward() -> None:
    """Over HTTP: a write, a read, a pause that ends the cache's life, and the bill to the nano-dollar."""
    server = SimServer(SimSettings(prices_on="2026-05-01"))
    await server.start()
    system = [{"type": "text", "text": "x" * 12_000, "cache_control": {"type": "ephemeral"}}]
    body: dict[str, Any] = {
        "model": SONNET,
        "max_tokens": 50,
        "system": system,
        "messages": [{"role": "user", "content": "hi"}],
    }
    headers = {"x-api-key": "sim-a", "anthropic-version": "2023-06-01"}
    try:
        async with aiohttp.ClientSession(server.base_url) as http:

            async def ask() -> dict[str, int]:
                async with http.post("/v1/messages", json=body, headers=headers) as answer:
                    return (await answer.json())["usage"]

            first, second = await ask(), await ask()
            assert (first["cache_creation_input_tokens"], first["cache_read_input_tokens"]) == (3_000, 0)
            assert (second["cache_creation_input_tokens"], second["cache_read_input_tokens"]) == (0, 3_000)
            async with http.post("/sim/clock", json={"advance_s": 301}) as answer:
                assert answer.status == 200
            third = await ask()
            assert third["cache_creation_input_tokens"] == 3_000
            async with http.post("/sim/clock", json={"advance_s": -1}) as answer:
                assert answer.status == 400
                assert "advance_s" in await answer.text()
            async with http.get("/bill") as answer:
                bill = await answer.json()
    finally:
        await server.stop()
    out = sum(one["output_tokens"] for one in (first, second, third))
    nano = 2 * 3_000 * 3_750 + 3_000 * 300 + 3 * first["input_tokens"] * 3_000 + out * 15_000
    assert bill["total"]["nano_usd"] == nano
    assert bill["usd"] == f"{nano / 1e9:.9f}".rstrip("0")
