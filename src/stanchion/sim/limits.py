"""Requests and tokens in every sliding window, per API key; and, where it is told to, a provider's rate limits.

A window is half open, (t - window, t]: the most that any window held is found at its events. Input is counted when a
request arrives, output when its answer ends. A request above a limit is answered 429, with Retry-After and the wire's
rate-limit headers, and counts as refused only; the limits hold for each key by itself.
"""

from __future__ import annotations

import math
from collections import deque
from datetime import UTC, datetime, timedelta

import msgspec

from stanchion.sim.bill import shown_key
from stanchion.sim.exchange import Refusal, WireName


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a key may do in a window; 0: count only."""

    rpm: int = 0
    tpm: int = 0
    window_s: float = 60.0


class MeterView(msgspec.Struct):
    """What was counted of one kind."""

    total: int
    now: int
    """In the window that ends now."""
    max: int
    """The most in any window."""
    mean: float
    """Of all full windows from the first event to the last: what was used of a limit on average."""
    limit: int


class KeyView(msgspec.Struct):
    """What was counted of one key."""

    key: str
    requests: MeterView
    tokens: MeterView
    refused: int


class LimitsView(msgspec.Struct):
    """The body of `GET /limits`."""

    simulated: bool
    window_s: float
    keys: list[KeyView]


class Meter:
    """Counts in a sliding window. Times never go back."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.total = self.now = self.most = 0
        self._events: deque[tuple[float, int]] = deque()
        self._began_s = -1.0
        self._at_s = 0.0
        self._area = 0.0
        self._last_area = self._last_s = 0.0

    def add(self, amount: int, at_s: float) -> None:
        """Count something."""
        self.pass_to(at_s)
        if self._began_s < 0:
            self._began_s = self._at_s = at_s
        if amount:
            self._events.append((at_s, amount))
        self.total += amount
        self.now += amount
        self.most = max(self.most, self.now)
        self._last_area, self._last_s = self._area, at_s

    def pass_to(self, at_s: float) -> None:
        """Let go of what is out of the window."""
        while self._events and self._events[0][0] + self.window_s <= at_s:
            began_s, amount = self._events.popleft()
            self._sum_to(began_s + self.window_s)
            self.now -= amount
        self._sum_to(at_s)

    def _sum_to(self, at_s: float) -> None:
        """Sum up the count over time, from the end of the first full window on."""
        since_s = max(self._at_s, self._began_s + self.window_s)
        if self._began_s >= 0 and at_s > since_s:
            self._area += self.now * (at_s - since_s)
        self._at_s = max(self._at_s, at_s)

    def free_in_s(self, amount: int, limit: int, at_s: float) -> float:
        """How long until `amount` fits; 0: it does."""
        self.pass_to(at_s)
        over = self.now + min(amount, limit) - limit
        for began_s, counted in self._events:
            if over <= 0:
                break
            over -= counted
            if over <= 0:
                return began_s + self.window_s - at_s
        return 0.0

    def view(self, limit: int, at_s: float) -> MeterView:
        """Show what was counted."""
        self.pass_to(at_s)
        full_s = self._last_s - self._began_s - self.window_s
        mean = self._last_area / full_s if full_s > 0 else 0.0
        return MeterView(self.total, self.now, self.most, round(mean, 3), limit)


class _Key:
    def __init__(self, window_s: float) -> None:
        self.requests = Meter(window_s)
        self.tokens = Meter(window_s)
        self.refused = 0


class RateLimits:
    """The meters of all keys. In memory, until a reset."""

    def __init__(self, settings: LimitSettings) -> None:
        self.settings = settings
        self._keys: dict[str, _Key] = {}

    def arrive(self, key: str, input_tokens: int, wire: WireName, at_s: float) -> dict[str, str]:
        """Count a request, or refuse it (`LimitReached`); the answer's rate-limit headers."""
        of, settings = self._of(key), self.settings
        waits = {
            "requests": of.requests.free_in_s(1, settings.rpm, at_s) if settings.rpm else 0.0,
            "tokens": of.tokens.free_in_s(input_tokens, settings.tpm, at_s) if settings.tpm else 0.0,
        }
        if wait_s := max(waits.values()):
            of.refused += 1
            kind = max(waits, key=lambda name: waits[name])
            raise LimitReached(kind, wait_s, self._headers(of, wire, at_s), settings)
        of.requests.add(1, at_s)
        of.tokens.add(input_tokens, at_s)
        return self._headers(of, wire, at_s)

    def generated(self, key: str, output_tokens: int, at_s: float) -> None:
        """Count what an answer held."""
        self._of(key).tokens.add(output_tokens, at_s)

    def view(self, at_s: float) -> LimitsView:
        """Show all keys."""
        settings = self.settings
        keys = [
            KeyView(name, of.requests.view(settings.rpm, at_s), of.tokens.view(settings.tpm, at_s), of.refused)
            for name, of in sorted(self._keys.items())
        ]
        return LimitsView(True, settings.window_s, keys)

    def set(self, settings: LimitSettings) -> None:
        """Take other limits, and begin to count anew."""
        self.settings = settings
        self._keys.clear()

    def _of(self, key: str) -> _Key:
        return self._keys.setdefault(shown_key(key), _Key(self.settings.window_s))

    def _headers(self, of: _Key, wire: WireName, at_s: float) -> dict[str, str]:
        """Say what is left, in the wire's own headers (Anthropic "Rate limits", OpenAI "Rate limits")."""
        found: dict[str, str] = {}
        for kind, meter, limit in (
            ("requests", of.requests, self.settings.rpm),
            ("tokens", of.tokens, self.settings.tpm),
        ):
            if not limit:
                continue
            left, reset_s = max(limit - meter.now, 0), meter.free_in_s(limit, limit, at_s)
            if wire == "anthropic":
                reset = (datetime.now(UTC) + timedelta(seconds=reset_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
                said = {"limit": str(limit), "remaining": str(left), "reset": reset}
                found.update({f"anthropic-ratelimit-{kind}-{name}": value for name, value in said.items()})
            else:
                said = {"limit": str(limit), "remaining": str(left), "reset": f"{reset_s:.3f}s"}
                found.update({f"x-ratelimit-{name}-{kind}": value for name, value in said.items()})
        return found


class LimitReached(Refusal):
    """A request was one too many."""

    def __init__(self, kind: str, wait_s: float, headers: dict[str, str], settings: LimitSettings) -> None:
        limit = settings.rpm if kind == "requests" else settings.tpm
        text = f"This request would exceed the rate limit of {limit} {kind} in {settings.window_s:g} s (simulated)"
        super().__init__(text, status=429, kind="rate_limit_error", code="rate_limit_exceeded")
        # Whole seconds, as providers say it; a window made short for a test is told to the millisecond.
        seconds = str(math.ceil(wait_s)) if settings.window_s >= 30 else f"{wait_s + 0.001:.3f}"
        self.headers = {**headers, "retry-after": seconds}
