"""The relay: token deltas for readers in another process than the one that drives the run.

    reader here -> want ----- "watched" to all, again every 5 s ----> whoever drives it now or later
    Live.told <- no gap? <---- "speech" to this process alone <------ what was said so far, then what is said

Nothing is sent for runs that nobody watches elsewhere. What is said goes out at once after a pause, and else every 50 ms
for all runs of the process together. Nothing waits for it: the text lies in the draft, and who missed some (a number is
missing, the line was lost) asks again and gets all of it. What a reader has already had is not given to him twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Iterable
from typing import assert_never

from stanchion.engine import letters
from stanchion.engine.letters import Said, Speech, Unwatched, Watched, WhoWatches
from stanchion.engine.live import Live, Place, joined
from stanchion.journal.relay import Letter, Wire
from stanchion.journal.store import Store

log = logging.getLogger("stanchion.engine")

GAP_S = 0.05
"""Between two sendings of what goes on."""
SOON_S = 0.005
"""Between two sendings where something begins: a watch, a call's first words."""
RENEW_S = 5.0
TTL_S = 3 * RENEW_S
"""A watch stands so long without being renewed: its process may be gone."""
ASK_S = 1.0
"""How often the text so far is asked for again, at most."""
_NOW_S = 1e-4
"""What is due so soon is due: a clock may not tell less apart."""
BURST = 64
"""Messages that are sent in one piece."""


class _Ear:
    """A process that watches a run which may be driven here, and what it was sent."""

    __slots__ = ("number", "sent", "seq", "until_s")

    def __init__(self) -> None:
        self.until_s = 0.0
        self.seq = 0
        self.sent = 0
        self.number = 0

    def forget(self) -> None:
        """Begin anew."""
        self.seq = self.sent = self.number = 0


class _Eye:
    """A run that is watched here: which attempt it is told of, and the number that comes next."""

    __slots__ = ("ask", "asked_s", "next", "said", "seq")

    def __init__(self) -> None:
        self.ask = True
        self.asked_s = -math.inf
        self.said = False
        """Others were told."""
        self.seq = 0
        self.next = 0


class Relay:
    """One process's part in the relay."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._wire: Wire | None = None
        self._ears: dict[Place, dict[str, _Ear]] = {}
        self._eyes: dict[Place, _Eye] = {}
        self._grown: dict[Place, None] = {}
        self._left: list[Place] = []
        self._drives = False
        self._curious = False
        """Who watches is to be asked."""
        self._asked = False
        """Somebody asked who watches."""
        self._at_s = math.inf
        self._last_s = -math.inf
        self._renew_s = math.inf
        self._purge_s = 0.0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, store: Store, live: Live) -> Relay:
        """Join the relay of a store; without one, this does nothing."""
        relay = cls(live)
        relay._wire = store.relay(relay._overheard)
        if relay._wire is not None:
            live.outlet = relay
        return relay

    def drives(self) -> None:
        """Learn who watches: runs are going to be driven here."""
        if self._wire is not None:
            self._drives = self._curious = True
            self._by(0)

    async def aclose(self) -> None:
        """Stop."""
        self._live.outlet = None
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    # --- what this process says of itself ----------------------------------------------------------------------------

    def want(self, place: Place) -> None:
        """Ask for the deltas of a run from now on, and for the text so far."""
        if place not in self._eyes:
            self._eyes[place] = _Eye()
            self._by(SOON_S)

    def unwant(self, place: Place) -> None:
        """Take that back."""
        eye = self._eyes.pop(place, None)
        if eye is not None and eye.said:
            self._left.append(place)
            self._by(GAP_S)

    def grown(self, place: Place) -> None:
        """Hear that there is more of a run that is driven here."""
        if place in self._ears and place not in self._grown:
            self._grown[place] = None
            draft = self._live.draft(place)
            begins = draft is not None and any(ear.seq != draft.seq for ear in self._ears[place].values())
            self._by(SOON_S if begins else GAP_S)

    # --- what others say ---------------------------------------------------------------------------------------------

    def _overheard(self, text: str | None) -> None:
        if text is None:  # the line was lost: all may have been missed, and others may have missed all
            self._ask_again(self._eyes.values())
            self._curious = self._drives
            self._by(SOON_S)
            return
        message = letters.decode(text)
        match message:
            case None:
                log.debug("a message of another version was left aside")
            case Speech():
                for said in message.said:
                    self._heard(said)
            case _ if self._wire is None or message.by == self._wire.name:
                pass
            case Watched():
                self._watched(message)
            case Unwatched():
                for tenant, run in message.runs:
                    self._drop((tenant, run), message.by)
            case WhoWatches():
                if self._eyes:
                    self._asked = True
                    self._by(SOON_S)
            case _:
                assert_never(message)

    def _heard(self, said: Said) -> None:
        """Give a part of what a model said to the readers, or ask for what is missing before it."""
        place = said.tenant, said.run
        eye = self._eyes.get(place)
        if eye is None or said.seq < eye.seq:
            return
        if said.seq > eye.seq:
            eye.seq, eye.next = said.seq, 0
        if said.number in (0, eye.next):
            eye.next = said.number + 1
            self._live.told(place, said.draft())
        elif said.number > eye.next:
            self._ask_again((eye,))

    def _ask_again(self, eyes: Iterable[_Eye]) -> None:
        for eye in eyes:
            eye.ask = True
            self._at(max(eye.asked_s + ASK_S, self._last_s + SOON_S))

    def _watched(self, message: Watched) -> None:
        now_s = asyncio.get_running_loop().time()
        self._purge(now_s)
        for tenant, run, ask in message.runs:
            place = tenant, run
            ear = self._ears.setdefault(place, {}).setdefault(message.by, _Ear())
            ear.until_s = now_s + message.ttl_ms / 1000
            if ask:
                ear.forget()
            if not ear.sent and self._live.draft(place) is not None:
                self._grown[place] = None
                self._by(SOON_S)

    def _purge(self, now_s: float) -> None:
        """Drop watches that were not renewed."""
        if now_s < self._purge_s:
            return
        self._purge_s = now_s + TTL_S
        for place, ears in list(self._ears.items()):
            for name in [name for name, ear in ears.items() if ear.until_s < now_s]:
                self._drop(place, name)

    def _drop(self, place: Place, name: str) -> None:
        ears = self._ears.get(place, {})
        ears.pop(name, None)
        if not ears:
            self._ears.pop(place, None)
            self._grown.pop(place, None)

    # --- sending -----------------------------------------------------------------------------------------------------

    def _by(self, pause_s: float) -> None:
        """Send so long after the last sending, or now if that is long ago."""
        self._at(max(asyncio.get_running_loop().time(), self._last_s + pause_s))

    def _at(self, at_s: float) -> None:
        if at_s < self._at_s:
            self._at_s = at_s
            self._wake.set()
            if self._task is None:
                self._task = asyncio.create_task(self._run(), name="stanchion-relay")

    async def _run(self) -> None:
        while (wire := self._wire) is not None:
            await self._until_due()
            now_s = asyncio.get_running_loop().time()
            self._last_s, self._at_s = now_s, math.inf
            try:
                parcel = [*self._own(wire, now_s), *self._speech(wire, now_s)]
                for start in range(0, len(parcel), BURST):
                    if not await wire.send(parcel[start : start + BURST]):
                        self._unsent()
                        break
            except Exception:  # without it no reader elsewhere would see anything until its run's next event
                log.exception("the relay failed; it goes on")
                self._unsent()

    async def _until_due(self) -> None:
        loop = asyncio.get_running_loop()
        while (left_s := min(self._at_s, self._renew_s) - loop.time()) > _NOW_S:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if left_s == math.inf else left_s):
                    await self._wake.wait()

    def _unsent(self) -> None:
        """What was sent last may not have left: begin anew with everybody. The line says when it stands again."""
        for place, ears in self._ears.items():
            for ear in ears.values():
                ear.forget()
            self._grown[place] = None
        self._curious = self._drives
        for eye in self._eyes.values():
            eye.ask = True
        self._last_s = asyncio.get_running_loop().time()
        self._at_s = self._last_s + ASK_S

    def _own(self, wire: Wire, now_s: float) -> list[Letter]:
        """Say what is watched here: what is new, or all of it if it is time to renew or somebody asked."""
        all_of_it = self._asked or now_s >= self._renew_s - _NOW_S
        self._asked = False
        runs: list[tuple[str, str, bool]] = []
        for place, eye in self._eyes.items():
            ask = eye.ask and now_s - eye.asked_s >= ASK_S - _NOW_S
            if ask:
                eye.asked_s, eye.ask = now_s, False
            if all_of_it or ask:
                runs.append((*place, ask))
                eye.said = True
            if eye.ask:
                self._at(eye.asked_s + ASK_S)
        if all_of_it or self._renew_s == math.inf:
            self._renew_s = now_s + RENEW_S if self._eyes else math.inf
        left = [place for place in self._left if place not in self._eyes]
        self._left = []
        texts = [
            *letters.watched(wire.name, int(TTL_S * 1000), runs, wire.limit_bytes),
            *letters.unwatched(wire.name, left, wire.limit_bytes),
        ]
        if self._curious:
            self._curious = False
            texts.append(letters.encode(WhoWatches(wire.name)))
        return [Letter("", text) for text in texts]

    def _speech(self, wire: Wire, now_s: float) -> list[Letter]:
        """Say what was said since the last time, to each process what it watches."""
        self._purge(now_s)
        by_ear: dict[str, list[Said]] = {}
        for place in self._grown:
            draft = self._live.draft(place)
            for name, ear in self._ears.get(place, {}).items():
                if draft is None:
                    continue
                if ear.seq != draft.seq:
                    ear.forget()
                    ear.seq = draft.seq
                pieces = joined(draft.pieces[ear.sent :])
                said = letters.cut(place, draft, pieces, ear.number, wire.limit_bytes)
                ear.sent, ear.number = len(draft.pieces), ear.number + len(said)
                by_ear.setdefault(name, []).extend(said)
        self._grown.clear()
        return [Letter(name, text) for name, said in by_ear.items() for text in letters.speech(said, wire.limit_bytes)]
