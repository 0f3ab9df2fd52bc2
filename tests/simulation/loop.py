"""A deterministic event loop: virtual time, no I/O, and a seeded order of what is ready.

Every handle belongs to a `Domain` (a process of the simulated deployment), found by a context variable that its tasks
inherit. The loop picks a domain at random, and its oldest handle; in a `reorder` loop sometimes a younger one. When nothing
is ready, time jumps to the next timer. A frozen domain runs nothing until it is thawed; a dead one never again, and what
it held is kept until the end so that no finalizer runs in between.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Literal, TypeVar

T = TypeVar("T")


class Stuck(Exception):
    """Nothing is ready and nothing is due: whoever is waited for will not come."""


class Domain:
    """What is scheduled, frozen and killed together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Literal["up", "frozen", "dead"] = "up"
        self.ready: deque[events.Handle] = deque()
        self.context = contextvars.copy_context()
        self.context.run(DOMAIN.set, self)


DOMAIN: contextvars.ContextVar[Domain] = contextvars.ContextVar("domain")


class SimLoop(asyncio.BaseEventLoop):
    """The loop of one simulation."""

    def __init__(self, rng: Random, *, reorder: float = 0.0) -> None:
        super().__init__()
        self.domains: list[Domain] = []
        self.world = self.domain("world")
        """What is outside of the deployment: never frozen, never killed."""
        self.steps = 0
        self.tasks: list[asyncio.Task[Any]] = []
        self.errors: list[str] = []
        self._rng = rng
        self._reorder = reorder
        self._now = 0.0
        self._order = 0
        self._busy: list[Domain] = []
        self._timers: list[tuple[float, int, events.TimerHandle, Domain]] = []
        self.set_exception_handler(self._unhandled)
        self.set_task_factory(_make_task)

    # --- what asyncio asks of a loop ----------------------------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> events.Handle:
        handle = events.Handle(callback, args, self, context)
        self._enqueue(self._domain_of(handle), handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> events.TimerHandle:
        timer = events.TimerHandle(when, callback, args, self, context)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, timer, self._domain_of(timer)))
        timer._scheduled = True
        return timer

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> events.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run it here and now: a thread would come back whenever it likes."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """A cancelled timer is skipped when its time comes."""

    def _process_events(self, event_list: Any) -> None:
        """There is no I/O."""

    def _write_to_self(self) -> None:
        """There is nobody to wake."""

    def _run_once(self) -> None:
        while not self._busy:
            self._jump()
        busy = self._busy
        at = int(self._rng.random() * len(busy)) if len(busy) > 1 else 0
        domain = busy[at]
        ready = domain.ready
        if self._reorder and len(ready) > 1 and self._rng.random() < self._reorder:
            ready.rotate(-int(self._rng.random() * len(ready)))
        handle = ready.popleft()
        if not ready:
            busy[at] = busy[-1]
            busy.pop()
        if not handle._cancelled:
            self.steps += 1
            handle._run()

    # --- the simulation's own ------------------------------------------------------------------------------------------

    def domain(self, name: str) -> Domain:
        """Make a process."""
        domain = Domain(name)
        self.domains.append(domain)
        return domain

    def after(self, delay_s: float, call: Callable[..., Any], *args: Any) -> None:
        """Have the world do something later, whoever asks for it now."""
        self.call_at(self._now + delay_s, call, *args, context=self.world.context)

    def spawn(self, domain: Domain, coroutine: Any) -> asyncio.Task[Any]:
        """Begin a task in a domain."""
        return self.create_task(coroutine, context=domain.context.copy())

    def freeze(self, domain: Domain) -> None:
        """Run nothing of a domain until it is thawed."""
        if domain.state == "up":
            domain.state = "frozen"
            self._unready(domain)

    def thaw(self, domain: Domain) -> None:
        """Let a frozen domain go on: all that has become due meanwhile is due at once."""
        if domain.state == "frozen":
            domain.state = "up"
            if domain.ready:
                self._busy.append(domain)

    def kill(self, domain: Domain) -> None:
        """Run nothing of a domain ever again."""
        domain.state = "dead"
        self._unready(domain)

    def finish(self) -> None:
        """Close what never ended, in order, so that nothing is left to chance."""
        for domain in self.domains:
            domain.state = "dead"
        for task in self.tasks:
            if not task.done():
                _close(task.get_coro())
        self._busy.clear()
        self.close()

    def _domain_of(self, handle: events.Handle) -> Domain:
        return handle._context.get(DOMAIN, self.world)  # type: ignore[attr-defined]

    def _enqueue(self, domain: Domain, handle: events.Handle) -> None:
        if not domain.ready and domain.state == "up":
            self._busy.append(domain)
        domain.ready.append(handle)

    def _unready(self, domain: Domain) -> None:
        if domain in self._busy:
            self._busy.remove(domain)

    def _jump(self) -> None:
        """Let time pass until something is due."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise Stuck
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            _, _, timer, domain = heapq.heappop(timers)
            if not timer._cancelled and domain.state != "dead":
                self._enqueue(domain, timer)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")


def _make_task(loop: Any, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
    task: Any = asyncio.Task(coroutine, loop=loop, **more)
    task._log_destroy_pending = False
    loop.tasks.append(task)
    return task


def _close(coroutine: Any) -> None:
    """End a coroutine whose `finally` awaits: it is told again at each of them. (`close` would leave what it awaits behind.)"""
    for _ in range(100):
        try:
            coroutine.throw(asyncio.CancelledError())
        except BaseException:
            return
