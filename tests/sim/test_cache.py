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
BREAKPOINTS = CacheRules("openai-breakpoints", "breakpoints", 1_024, marks=3, short_s=1_800, long_s=43_200)
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


async def test_a_deferred_tool_is_billed_where_it_is_referred_to() -> None:
    """It stands behind what is kept: the tools and the system prompt are read, though a tool was found since."""
    server = SimServer(SimSettings())
    await server.start()
    schema = {"type": "object", "properties": {}}
    tools = [{"name": f"tool_{n}", "description": "d" * 4_000, "input_schema": schema} for n in range(3)]
    deferred = [{**tool, "defer_loading": True} for tool in tools[1:]]
    marked = {"type": "text", "text": "s" * 8_000, "cache_control": {"type": "ephemeral"}}
    user = {"role": "user", "content": "hi"}
    call = {"type": "tool_use", "id": "t1", "name": "tool_0", "input": {}}
    found = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "tool_reference", "tool_name": "tool_2"}]}
    begun = [user, {"role": "assistant", "content": [call]}]
    named = [*begun, {"role": "user", "content": [found]}]
    plain = [*begun, {"role": "user", "content": [{**found, "content": "none"}]}]
    headers = {"x-api-key": "sim-a", "anthropic-version": "2023-06-01"}
    try:
        async with aiohttp.ClientSession(server.base_url) as http:

            async def ask(messages: list[dict[str, Any]], given: list[dict[str, Any]]) -> dict[str, int]:
                body = {"model": SONNET, "max_tokens": 9, "system": [marked], "messages": messages, "tools": given}
                async with http.post("/v1/messages", json=body, headers=headers) as answer:
                    assert answer.status == 200, await answer.text()
                    return (await answer.json())["usage"]

            alone = await ask([user], tools[:1])
            first = await ask([user], tools[:1] + deferred)
            after, without = await ask(named, tools[:1] + deferred), await ask(plain, tools[:1] + deferred)
    finally:
        await server.stop()
    kept = alone["cache_creation_input_tokens"]
    assert 3_000 < kept < 3_100
    assert (first["cache_read_input_tokens"], first["input_tokens"]) == (kept, alone["input_tokens"]), "none is billed"
    assert after["cache_read_input_tokens"] == without["cache_read_input_tokens"] == kept
    assert 1_000 <= after["input_tokens"] - without["input_tokens"] < 1_060, "one definition"


def test_only_what_ends_at_a_breakpoint_is_read() -> None:
    """OpenAI from gpt-5.6 on: the end of a request is kept unasked, a shorter prefix only where a breakpoint ended it."""
    cache = PrefixCache()
    assert cache.use("k", pieces(2_000, 100), BREAKPOINTS, 0) == Found(0, 0, 2_100)
    assert cache.use("k", pieces(2_000, 100, 50, 60), BREAKPOINTS, 1) == Found(0, 2_100, 110), (
        "all that was sent before"
    )
    assert cache.use("k", pieces(2_000, 101), BREAKPOINTS, 2) == Found(0, 0, 2_101), "the beginning alone was not kept"
    cache.use("k", pieces(2_000, 102, marks={0: "explicit"}), BREAKPOINTS, 3)
    assert cache.use("k", pieces(2_000, 103), BREAKPOINTS, 4) == Found(0, 2_000, 103), "now it is"


def test_without_an_end_only_breakpoints_are_kept() -> None:
    """Mode explicit; and with none at all nothing is read either, though it is there."""
    cache = PrefixCache()
    assert cache.use("k", pieces(2_000, 100, marks={0: "explicit"}), BREAKPOINTS, 0, end=False) == Found(100, 0, 2_000)
    assert cache.use("k", pieces(2_000, 100), BREAKPOINTS, 1, end=False) == Found(2_100)
    five = pieces(2_000, 100, 100, 100, 100, marks=dict.fromkeys(range(5), "explicit"))
    other = PrefixCache()
    other.use("k", five, BREAKPOINTS, 0, end=False)
    assert other.use("k", five[:1], BREAKPOINTS, 1).read == 0, "the latest four are written, not the fifth"
    assert other.use("k", five[:2], BREAKPOINTS, 2).read == 2_100


def test_the_long_life_of_breakpoints_is_written_apart() -> None:
    """Thirty minutes, or twelve hours where they are asked for."""
    cache = PrefixCache()
    assert cache.use("k", pieces(2_000), BREAKPOINTS, 0) == Found(0, 0, 2_000)
    assert cache.use("k", pieces(2_000), BREAKPOINTS, 1_799).read == 2_000
    assert cache.use("k", pieces(2_000), BREAKPOINTS, 1_799 + 1_801, long=True) == Found(0, 0, 0, 2_000)
    assert cache.use("k", pieces(2_000), BREAKPOINTS, 43_000).read == 2_000


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("gpt-5.2", "automatic"), ("gpt-5-2025-08-07", "automatic"), ("gpt-5.5-pro", "automatic"), ("gpt-5.6", "breakpoints"),
        ("gpt-5.6-terra", "breakpoints"), ("gpt-5.10", "breakpoints"), ("gpt-6-astra", "breakpoints"), ("o3", "automatic"),
        ("gpt-4o", "automatic"),
    ],
)  # fmt: skip
def test_which_of_openais_models_take_breakpoints(model: str, kind: str) -> None:
    """From gpt-5.6 on, however the name goes on."""
    rules = cache_rules("openai", model)
    assert rules is not None
    assert rules.kind == kind
    other = cache_rules("openrouter", model)
    assert other is None or other.kind == "automatic", "a seller of the same models is not known to take them"


BREAK = {"prompt_cache_breakpoint": {"mode": "explicit"}}


async def _asked(http: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with http.post(path, json=body, headers={"authorization": "Bearer k"}) as response:
        return response.status, await response.json()


async def test_breakpoints_over_http_on_both_wires() -> None:
    """A content part carries one; what is written for 12 hours is billed as such; an older model refuses it by name."""
    server = SimServer(SimSettings(prices_on="2026-12-01"))
    await server.start()
    long = "stable " * 2_000
    try:
        async with aiohttp.ClientSession() as http:
            part = {"type": "input_text", "text": long, **BREAK}
            system = {"role": "developer", "content": [part]}
            first = {"model": "gpt-5.6", "input": [system, {"role": "user", "content": "a"}]}
            status, found = await _asked(http, f"{server.base_url}/v1/responses", first)
            assert (status, found["usage"]["input_tokens_details"]) == (
                200,
                {"cached_tokens": 0, "cache_write_tokens": 3_501},
            )
            second = {"model": "gpt-5.6", "input": [system, {"role": "user", "content": "b"}]}
            _, found = await _asked(http, f"{server.base_url}/v1/responses", second)
            assert found["usage"]["input_tokens_details"] == {"cached_tokens": 3_500, "cache_write_tokens": 1}
            chat = {
                "model": "gpt-5.6", "prompt_cache_options": {"ttl": "12h"},
                "messages": [
                    {"role": "system", "content": [{"type": "text", "text": long, **BREAK}]}, {"role": "user", "content": "a"},
                ],
            }  # fmt: skip
            _, found = await _asked(http, f"{server.base_url}/v1/chat/completions", chat)
            assert found["usage"]["prompt_tokens_details"]["cache_write_tokens"] == 3_501
            async with http.get(f"{server.base_url}/bill") as response:
                total = (await response.json())["total"]
            assert (total["cache_write_tokens"], total["cache_write_long_tokens"]) == (3_502, 3_501)
            for older in (first | {"model": "gpt-5.2"}, {"model": "gpt-5.2", "input": "a", "prompt_cache_options": {}}):
                status, found = await _asked(http, f"{server.base_url}/v1/responses", older)
                assert status == 400
                assert "prompt_cache" in found["error"]["message"]
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("model", "least"), [("gemini-2.5-pro", 2_048), ("gemini-3.1-pro-preview", 4_096), ("gemini-4-argon", 4_096)]
)
def test_geminis_implicit_cache(model: str, least: int) -> None:
    """From so many tokens on, without a mark, at no price for writing; how long is not said, so that nothing is refreshed for it."""
    for provider in ("gemini", "openai-chat", "openrouter"):
        rules = cache_rules(provider, model)
        assert rules is not None
        assert (rules.kind, rules.minimum, rules.promised) == ("automatic", least, False)
        cache = PrefixCache()
        cache.use("k", pieces(least - 1), rules, 0, writes=False)
        assert cache.use("k", pieces(least - 1, 100), rules, 1, writes=False).read == 0
        assert cache.use("k", pieces(least - 1, 100, 7), rules, 2, writes=False) == Found(7, least + 99)
    assert cache_rules("gemini", "gemini-1.5-pro") is None, "before 2.5 there is none"


async def test_a_gemini_is_billed_at_its_own_price() -> None:
    """Through the endpoint that is compatible with OpenAI's chat: what was sent before costs a tenth."""
    server = SimServer(SimSettings(prices_on="2026-12-01"))
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            for text in ("a", "b"):
                body = {
                    "model": "gemini-3.8-flash",
                    "messages": [{"role": "system", "content": "stable " * 4_000}, {"role": "user", "content": text}],
                }
                _, found = await _asked(http, f"{server.base_url}/v1/chat/completions", body)
            assert found["usage"]["prompt_tokens_details"]["cached_tokens"] == 7_000
            async with http.get(f"{server.base_url}/bill") as response:
                total = (await response.json())["total"]
        assert total["unpriced"] == 0
        output = total["output_tokens"] * 3_750
        assert total["nano_usd"] == pytest.approx(7_002 * 750 + 7_000 * 75 + output, abs=2)
    finally:
        await server.stop()
