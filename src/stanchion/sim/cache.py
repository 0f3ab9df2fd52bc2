"""The simulated providers' prefix caches: what a request finds, what it leaves, and what of its input that makes.

A request is a row of pieces; a prefix is named by a hash over the pieces up to it, of one key and model. *Marked* (Anthropic): a
request looks at each of its breakpoints and up to 20 blocks before it for a prefix that an earlier request had marked; the longest is
read, and what lies between it and the last breakpoint is written. *Automatic* (OpenAI): the longest prefix of whole pieces that was
ever sent is read, in steps of 128 tokens. With *breakpoints* (OpenAI from gpt-5.6 on) the end of a request is kept and what its
breakpoints end, at most four in all, the latest; the longest prefix that was kept so is read, however far back. What is read lives again
as long as it was meant to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from stanchion.core.caching import CacheRules
from stanchion.sim.tokens import Piece


class Found(msgspec.Struct, frozen=True):
    """How a request's input falls into kinds; they add up to all of it."""

    plain: int
    read: int = 0
    written: int = 0
    written_long: int = 0


class _Kept(msgspec.Struct):
    life_s: float
    until_s: float


class PrefixCache:
    """The caches of all keys and models of one simulated provider."""

    def __init__(self) -> None:
        self._kept: dict[bytes, _Kept] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def use(
        self,
        owner: str,
        pieces: Sequence[Piece],
        rules: CacheRules,
        now_s: float,
        *,
        long: bool = False,
        writes: bool = True,
        end: bool = True,
    ) -> Found:
        """Take a request: read what is kept, keep what it asks for.

        `long`: the longer life is asked for, of all that is kept. `end`: the end of a request is kept beside its breakpoints.
        """
        sums, names = _prefixes(owner, pieces)
        total = sums[-1] if sums else 0
        if rules.kind == "marked":
            return self._marked(pieces, sums, names, rules, now_s)
        if rules.kind == "breakpoints":
            return self._at_breakpoints(pieces, sums, names, rules, now_s, long=long, end=end)
        hit = max(
            (n for n, name in enumerate(names) if sums[n] >= rules.minimum and self._touch(name, now_s)), default=-1
        )
        read = sums[hit] // rules.step * rules.step if hit >= 0 else 0
        read = read if read >= rules.minimum else 0
        if total >= rules.minimum:
            for n, name in enumerate(names):
                if sums[n] >= rules.minimum:
                    self._keep(name, rules.long_s if long else rules.short_s, now_s)
        kept = total // rules.step * rules.step if total >= rules.minimum else 0
        written = max(kept - read, 0) if writes else 0
        return Found(total - read - written, read, written)

    def _marked(
        self, pieces: Sequence[Piece], sums: list[int], names: list[bytes], rules: CacheRules, now_s: float
    ) -> Found:
        marks = [n for n, piece in enumerate(pieces) if piece.cache_ttl]
        total = sums[-1] if sums else 0
        hit = -1
        for mark in marks:
            for n in range(mark, max(mark - rules.lookback, -1), -1):
                if n > hit and sums[n] >= rules.minimum and self._touch(names[n], now_s):
                    hit = n
                    break
        read = sums[hit] if hit >= 0 else 0
        written = written_long = 0
        upto = read
        for mark in marks:
            if sums[mark] < rules.minimum:
                continue
            is_long = pieces[mark].cache_ttl == "1h"
            new = max(sums[mark] - upto, 0)
            written_long, written = (written_long + new, written) if is_long else (written_long, written + new)
            upto = max(upto, sums[mark])
            self._keep(names[mark], rules.long_s if is_long else rules.short_s, now_s)
        return Found(total - upto, read, written, written_long)

    def _at_breakpoints(
        self,
        pieces: Sequence[Piece],
        sums: list[int],
        names: list[bytes],
        rules: CacheRules,
        now_s: float,
        *,
        long: bool,
        end: bool,
    ) -> Found:
        breaks = [n for n, piece in enumerate(pieces) if piece.cache_ttl][-rules.marks - (not end) :]
        breaks = sorted({*breaks, len(pieces) - 1}) if end and pieces else breaks
        breaks = [n for n in breaks if sums[n] >= rules.minimum]
        total = sums[-1] if sums else 0
        if not breaks:
            return Found(total)
        looked = range(len(pieces)) if end else breaks  # earlier requests' ends count where this one's would
        hit = max((n for n in looked if sums[n] >= rules.minimum and self._touch(names[n], now_s)), default=-1)
        read = sums[hit] if hit >= 0 else 0
        for n in breaks:
            self._keep(names[n], rules.long_s if long else rules.short_s, now_s)
        written = max(sums[breaks[-1]] - read, 0)
        return Found(total - read - written, read, 0 if long else written, written if long else 0)

    def _touch(self, name: bytes, now_s: float) -> bool:
        kept = self._kept.get(name)
        if kept is None or kept.until_s <= now_s:
            return False
        kept.until_s = now_s + kept.life_s
        return True

    def _keep(self, name: bytes, life_s: float, now_s: float) -> None:
        kept = self._kept.get(name)
        if kept is not None and kept.until_s > now_s:
            life_s = max(life_s, kept.life_s)
        self._kept[name] = _Kept(life_s, now_s + life_s)


def _prefixes(owner: str, pieces: Sequence[Piece]) -> tuple[list[int], list[bytes]]:
    """Give the tokens and the name of each prefix."""
    sums: list[int] = []
    names: list[bytes] = []
    total, running = 0, hashlib.blake2b(owner.encode(), digest_size=16)
    for piece in pieces:
        total += piece.tokens
        running.update(piece.digest)
        sums.append(total)
        names.append(running.digest())
    return sums, names
