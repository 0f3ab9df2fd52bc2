"""Sliding windows as the simulated provider counts them, and its rate limits."""

from __future__ import annotations

import aiohttp
import pytest

from stanchion.sim.embed import running_sim
from stanchion.sim.limits import LimitReached, LimitSettings, Meter, RateLimits
from stanchion.sim.server import SimServer
from stanchion.sim.settings import SimSettings

BODY = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
HEADERS = {"x-api-key": "sim-a", "anthropic-version": "2023-06-01"}


def test_the_most_of_any_window_is_found() -> None:
    """Two that are a window apart are never in one; whatever lies closer is."""
    meter = Meter(10.0)
    for at_s in (0.0, 1.0, 9.9, 10.0, 10.5, 30.0):
        meter.add(1, at_s)
    assert meter.view(0, 30.0).max == 4  # (0.5, 10.5]
    assert (meter.view(0, 30.0).now, meter.view(0, 30.0).total) == (1, 6)


def test_the_mean_is_that_of_full_windows() -> None:
    """A steady load of one in a second is ten in every window, from the first full one on."""
    meter = Meter(10.0)
    for second in range(41):
        meter.add(1, float(second))
    assert meter.view(0, 40.0).mean == pytest.approx(10.0)
    assert meter.view(0, 400.0).mean == pytest.approx(10.0), "what comes after the load does not count"


def test_a_limit_holds_and_says_when_there_is_room() -> None:
    """The request that is one too many is refused until the oldest is out of the window."""
    limits = RateLimits(LimitSettings(rpm=2, window_s=10.0))
    limits.arrive("sim-a", 5, "anthropic", 0.0)
    limits.arrive("sim-a", 5, "anthropic", 4.0)
    with pytest.raises(LimitReached) as caught:
        limits.arrive("sim-a", 5, "anthropic", 7.0)
    assert caught.value.headers["retry-after"] == "3.001"
    assert caught.value.headers["anthropic-ratelimit-requests-remaining"] == "0"
    limits.arrive("sim-b", 5, "anthropic", 7.0)
    limits.arrive("sim-a", 5, "anthropic", 10.001)
    assert [(view.key, view.requests.max, view.refused) for view in limits.view(11.0).keys] == [
        ("sim-a", 2, 1),
        ("sim-b", 1, 0),
    ]


def test_tokens_are_limited_in_and_out() -> None:
    """Output counts when it is there, and is in the way of the next input."""
    limits = RateLimits(LimitSettings(tpm=100, window_s=10.0))
    limits.arrive("sim-a", 60, "openai_chat", 0.0)
    limits.generated("sim-a", 30, 2.0)
    with pytest.raises(LimitReached, match="100 tokens in 10 s"):
        limits.arrive("sim-a", 11, "openai_chat", 3.0)
    assert limits.arrive("sim-a", 10, "openai_chat", 4.0)["x-ratelimit-remaining-tokens"] == "0"


async def test_over_http() -> None:
    """429 with Retry-After and headers; `GET /limits` shows it; without limits it only counts."""
    server = SimServer(SimSettings(limits=LimitSettings(rpm=1)))
    await server.start()
    try:
        async with aiohttp.ClientSession(headers=HEADERS) as client:
            async with client.post(f"{server.base_url}/v1/messages", json=BODY) as answer:
                assert answer.status == 200
                assert answer.headers["anthropic-ratelimit-requests-limit"] == "1"
            async with client.post(f"{server.base_url}/v1/messages", json=BODY) as answer:
                assert answer.status == 429
                assert 0 < int(answer.headers["retry-after"]) <= 60
                assert (await answer.json())["error"]["type"] == "rate_limit_error"
            async with client.get(f"{server.base_url}/limits") as answer:
                [key] = (await answer.json())["keys"]
                assert (key["key"], key["requests"]["max"], key["refused"]) == ("sim-a", 1, 1)
                assert key["tokens"]["total"] > 0
            async with client.put(f"{server.base_url}/sim/limits", json={"rpm": 0}) as answer:
                assert answer.status == 200
            for _ in range(2):
                async with client.post(f"{server.base_url}/v1/messages", json=BODY) as answer:
                    assert answer.status == 200
            async with client.put(f"{server.base_url}/sim/limits", json={"rpn": 0}) as answer:
                assert answer.status == 400
    finally:
        await server.stop()


async def test_a_faulty_request_counts_all_the_same() -> None:
    """A request that a fault answers has arrived."""
    async with running_sim() as server, aiohttp.ClientSession(headers=HEADERS) as client:
        async with client.post(
            f"{server.base_url}/v1/messages", json=BODY, headers={"x-sim-fault": "overloaded"}
        ) as answer:
            assert answer.status == 529
        async with client.get(f"{server.base_url}/limits") as answer:
            assert (await answer.json())["keys"][0]["requests"]["total"] == 1
