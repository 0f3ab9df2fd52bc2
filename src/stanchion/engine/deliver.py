"""Post what is in the outbox: each delivery at least once, signed, in order for each run, over a day if need be.

Every worker delivers. A delivery is claimed by lease, posted, and what came of it is noted; a worker that dies in between
leaves it to another when its lease ends, and the receiver knows the repetition by its id. What is to one receiver is one
lane, worked off by itself: a receiver that is slow or gone holds up nobody else. Success is 2xx; 410 disables the
endpoint; anything else is tried again at a random moment of an ever longer time, and then given up with its reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import aiohttp
import msgspec

from stanchion.core.errors import ConfigError, JournalError
from stanchion.core.message import text_of
from stanchion.engine.clock import Clock
from stanchion.engine.egress import FORBIDDEN, connector
from stanchion.engine.signature import signed_headers
from stanchion.journal.outbox import Claimed, Outbox, Settled
from stanchion.journal.store import Store

log = logging.getLogger("stanchion.engine")

ANSWER_CHARS = 60_000
"""Of an answer that an endpoint asked for."""
DRAIN_BYTES = 16_384
"""Of a receiver's answer that is read, for the sake of its connection. It is not kept."""
BATCHES = 16
"""Of one lane, before others that wait have a turn."""
TRIALS = 3
"""Attempts of a trial message: who tries an endpoint out is there to see what comes of it."""
SETTLE_TRIES = 3
AGAIN_S = 0.25
"""How soon the outbox is looked at again while something is due that is being worked on."""
PRUNE_S = 600.0
_OUR_AGENT = "stanchion"


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """How webhooks are delivered."""

    attempts: int = 20
    """Posts of one delivery before it is given up: about a day, as the pauses are."""
    first_retry_s: float = 5.0
    """The longest first pause; each is drawn from zero to twice the one before, and so on .."""
    longest_retry_s: float = 21_600.0
    """.. up to this."""
    timeout_s: float = 15.0
    """In which a receiver must have answered."""
    connect_timeout_s: float = 5.0
    settle_s: float = 15.0
    """How long after that another worker waits before it posts what this one left without a word."""
    concurrency: int = 8
    """Posts to one receiver at a time, by each worker."""
    lanes: int = 64
    """Receivers posted to at a time, by each worker."""
    poll_s: float = 2.0
    """How often the outbox is looked at for what other workers left."""
    keep_done_s: float = 3 * 86_400.0
    keep_dead_s: float = 30 * 86_400.0
    """How long what was accepted, and what was given up, stays listed."""
    allow_private: bool = False
    """Post to addresses of this machine and its networks, and without TLS. For tests, and where tenants are trusted."""
    public_url: str = ""
    """Where this server is reached from outside; links in payloads begin with it."""


class Deliverer:
    """Delivers what one store has to tell."""

    def __init__(self, store: Store, clock: Clock, settings: WebhookSettings) -> None:
        self._store = store
        self._outbox: Outbox = store.outbox
        self._clock = clock
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._wake = asyncio.Event()
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._last_lane = ""
        self._draining = False
        self._main: asyncio.Task[None] | None = None
        self._pruned_s = 0.0

    def open(self) -> None:
        """Begin."""
        self._outbox.listen(self._wake.set)
        self._pruned_s = asyncio.get_running_loop().time()
        self._main = asyncio.create_task(self._run(), name="stanchion-deliverer")

    async def aclose(self, *, grace_s: float = 1.0) -> None:
        """Take nothing new; what is being posted may finish within the grace, the rest is another's when its lease ends."""
        self._draining = True
        if self._main is not None:
            self._main.cancel()
            await asyncio.gather(self._main, return_exceptions=True)
        tasks = list(self._lanes.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    # --- lanes ---------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                due_ms = await self._outbox.next_due_ms()
                if due_ms:
                    await self._begin_lanes()
                await self._prune()
            except JournalError as error:
                log.error("the outbox could not be read: %s", error)
                due_ms = 0
            except Exception:  # without this task nothing would be delivered any more
                log.exception("the deliverer failed; it goes on")
                due_ms = 0
            await self._until(due_ms)

    async def _begin_lanes(self) -> None:
        """Work on lanes in which something is due, in turn: those behind the one that was begun last come first."""
        room = self._settings.lanes - len(self._lanes)
        if room <= 0:
            return
        due = [lane for lane in await self._outbox.lanes(limit=10_000) if lane not in self._lanes]
        due.sort(key=lambda lane: (lane <= self._last_lane, lane))
        for lane in due[:room]:
            self._last_lane = lane
            task = asyncio.create_task(self._work(lane), name="stanchion-lane")
            self._lanes[lane] = task

    async def _until(self, due_ms: int) -> None:
        wait_s = self._settings.poll_s
        if due_ms:
            left_s = (due_ms - self._clock.now_ms()) / 1000
            wait_s = min(wait_s, left_s if left_s > 0 else AGAIN_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()

    async def _work(self, lane: str) -> None:
        """Post what is due in a lane, a batch at a time."""
        try:
            for _ in range(BATCHES):
                if self._draining or not await self._batch(lane):
                    return
        except JournalError as error:
            log.error("deliveries of %s wait: %s", lane, error)
        except Exception:
            log.exception("deliveries of %s wait", lane)
        finally:
            self._lanes.pop(lane, None)
            self._wake.set()

    async def _batch(self, lane: str) -> bool:
        settings = self._settings
        lease_ms = int((settings.timeout_s + settings.settle_s) * 1000)
        batch = await self._outbox.claim(lane, lease_ms=lease_ms, limit=settings.concurrency)
        if batch:
            await self._settle(await asyncio.gather(*map(self._post, batch)))
        return len(batch) > 0

    async def _settle(self, settled: Sequence[Settled]) -> None:
        for tried in range(1, SETTLE_TRIES + 1):
            try:
                await self._outbox.settle(settled)
            except JournalError:
                if tried == SETTLE_TRIES:
                    raise
                await asyncio.sleep(AGAIN_S * tried)
            else:
                return

    async def _prune(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._pruned_s < PRUNE_S:
            return
        now_ms, keep = self._clock.now_ms(), self._settings
        done_ms, dead_ms = now_ms - int(keep.keep_done_s * 1000), now_ms - int(keep.keep_dead_s * 1000)
        if not await self._outbox.prune(done_before_ms=done_ms, dead_before_ms=dead_ms):
            self._pruned_s = now_s

    # --- one delivery --------------------------------------------------------------------------------------------------

    async def _post(self, claimed: Claimed) -> Settled:
        """Post a delivery and say what came of it."""
        try:
            body = await self._body(claimed)
            headers = signed_headers(self._secrets(claimed), claimed.delivery.id, self._clock.now_ms() // 1000, body)
            headers |= {"content-type": "application/json", "user-agent": f"{_OUR_AGENT}/{version('stanchion')}"}
            async with self._http().post(
                claimed.endpoint.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                await answer.content.read(DRAIN_BYTES)
                return await self._answered(claimed, answer.status, answer.headers.get("retry-after", ""))
        except TimeoutError:
            return self._failed(claimed, f"no answer within {self._settings.timeout_s:g} s")
        except JournalError as error:
            return self._failed(claimed, f"the store failed: {error}")
        except aiohttp.InvalidURL:  # (not in its words: a URL may hold a secret, and this is logged)
            return self._given_up(claimed, "it cannot be posted: its URL is none")
        except ConfigError as error:
            return self._given_up(claimed, f"it cannot be posted: {error}")
        except (aiohttp.ClientError, OSError) as error:
            text = str(error) or type(error).__name__
            if FORBIDDEN in text:
                return self._given_up(claimed, f"{text[:300]} (STANCHION_WEBHOOK_ALLOW_PRIVATE=1 allows it)")
            return self._failed(claimed, f"no connection: {text[:300]}")

    async def _answered(self, claimed: Claimed, status: int, retry_after: str) -> Settled:
        delivery = claimed.delivery
        if 200 <= status < 300:
            return Settled(delivery.tenant, delivery.id, delivery.attempts, "done", status)
        if status == 410:
            text = "the receiver is gone for good (HTTP 410)"
            await self._outbox.enable(delivery.tenant, delivery.endpoint, enabled=False, note=text)
            return self._given_up(claimed, text, status)
        what = "redirects, which are not followed" if 300 <= status < 400 else "answered"
        asked_s = (
            float(retry_after) if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 9 else 0.0
        )
        return self._failed(claimed, f"{what}: HTTP {status}", status, at_least_s=asked_s)

    def _failed(self, claimed: Claimed, note: str, status: int = 0, *, at_least_s: float = 0.0) -> Settled:
        delivery, settings = claimed.delivery, self._settings
        most = min(settings.attempts, TRIALS) if delivery.kind == "webhook.test" else settings.attempts
        if delivery.attempts >= most:
            return self._given_up(claimed, f"given up after {delivery.attempts} attempts; the last: {note}", status)
        pause_s = retry_pause_s(settings, delivery.attempts, self._clock.draw())
        pause_s = max(pause_s, min(at_least_s, settings.longest_retry_s))
        at_ms = self._clock.now_ms() + int(pause_s * 1000)
        return Settled(delivery.tenant, delivery.id, delivery.attempts, "pending", status, note, at_ms)

    def _given_up(self, claimed: Claimed, note: str, status: int = 0) -> Settled:
        delivery = claimed.delivery
        known = {"tenant": delivery.tenant}
        log.warning("webhook %s to %s is given up: %s", delivery.id, delivery.endpoint, note, extra=known)
        return Settled(delivery.tenant, delivery.id, delivery.attempts, "dead", status, note)

    async def _body(self, claimed: Claimed) -> bytes:
        """Complete the payload: whose run, where to read on, and the content that the endpoint asked for."""
        delivery, endpoint = claimed.delivery, claimed.endpoint
        payload: dict[str, Any] = msgspec.json.decode(delivery.body)
        data: dict[str, Any] = payload["data"]
        if delivery.run:
            path = f"{self._settings.public_url.rstrip('/')}/v1/runs/{delivery.run}"
            data = {"run": delivery.run, **data, "links": {"run": path, "events": f"{path}/events"}}
        if "answer" in endpoint.include and delivery.kind == "run.finished":
            entries = await self._store.read(delivery.tenant, delivery.run, after=delivery.seq - 1, limit=1)
            answer = text_of(entries[0].event.parts) if entries else ""
            data |= {"answer": answer[:ANSWER_CHARS], "answer_cut": len(answer) > ANSWER_CHARS}
        return msgspec.json.encode({**payload, "data": data})

    def _secrets(self, claimed: Claimed) -> list[str]:
        secrets = claimed.secrets
        old = secrets.previous if secrets.previous_until_ms > self._clock.now_ms() else ""
        return [secret for secret in (secrets.current, old) if secret]

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            settings = self._settings
            self._session = aiohttp.ClientSession(
                connector=connector(allow_private=settings.allow_private, limit=settings.lanes * settings.concurrency),
                timeout=aiohttp.ClientTimeout(total=settings.timeout_s, sock_connect=settings.connect_timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


def retry_pause_s(settings: WebhookSettings, attempts: int, draw: float) -> float:
    """Draw the pause after an attempt (from 1): anything up to a bound that doubles each time ("full jitter")."""
    bound_s = min(settings.first_retry_s * 2.0 ** min(attempts - 1, 60), settings.longest_retry_s)
    return draw * bound_s
