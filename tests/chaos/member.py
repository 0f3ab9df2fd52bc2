"""A process of the fleet: the real command line (`stanchion serve|worker|api`), with fuses in its store and a clock of its own.

`python -m tests.chaos.member` reads a JSON line {"command": [..], "skew_s"} and then becomes `stanchion COMMAND..`. Further lines
of its standard input say what is to happen to it: {"point", "at", "signal"} sends the process a signal at the n-th passing
of a point from now on; {"skew_s"} moves its wall clock. It prints {"seat": NAME} when it takes the driver's seat, {"burnt": POINT}
before the signal, and {"disarmed": true} when the signal will not come any more. Points: "claim", "claimed", "append",
"appended" (before and after it reached the store).
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_real_time, _real_time_ns = time.time, time.time_ns


class Skew:
    """How far this process's wall clock is off. Monotonic clocks are nobody's to change."""

    def __init__(self) -> None:
        self.by_s = 0.0

    def time(self) -> float:
        """Read the wall clock, wrong."""
        return _real_time() + self.by_s

    def time_ns(self) -> int:
        """Read the wall clock, wrong, in nanoseconds."""
        return _real_time_ns() + int(self.by_s * 1e9)

    def install(self) -> None:
        """Replace the clock for all that is imported from now on."""
        time.time, time.time_ns = self.time, self.time_ns


class Fuse:
    """Counts the passings of a point and sends a signal at one of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._point, self._left, self._signal = "", 0, 0

    def arm(self, point: str, at: int, signal: int) -> None:
        """Burn at the n-th passing from now on. An empty point disarms."""
        with self._lock:
            self._point, self._left, self._signal = point, at, signal
        if not point:
            tell({"disarmed": True})

    def burn(self, point: str) -> None:
        """Pass a point."""
        with self._lock:
            if point != self._point:
                return
            self._left -= 1
            if self._left > 0:
                return
            self._point = ""
        tell({"burnt": point})
        os.kill(os.getpid(), self._signal)


def tell(said: dict[str, object]) -> None:
    """Write a line to whoever looks after this process."""
    os.write(1, json.dumps(said).encode() + b"\n")


def _listen(fuse: Fuse, skew: Skew) -> None:
    for line in sys.stdin:
        said = json.loads(line)
        if "skew_s" in said:
            skew.by_s = said["skew_s"]
        else:
            fuse.arm(said["point"], said["at"], said["signal"])


def _fused(method: Callable[..., Any], fuse: Fuse, before: str, after: str) -> Callable[..., Any]:
    async def write(self: Any, *given: Any, **named: Any) -> Any:
        fuse.burn(before)
        result = await method(self, *given, **named)
        fuse.burn(after)
        return result

    return write


def _fuse_store(fuse: Fuse) -> None:
    from stanchion.journal.postgres.store import PostgresStore

    PostgresStore.append = _fused(PostgresStore.append, fuse, "append", "appended")  # type: ignore[method-assign]
    PostgresStore.start = _fused(PostgresStore.start, fuse, "append", "appended")  # type: ignore[method-assign]
    PostgresStore.claim = _fused(PostgresStore.claim, fuse, "claim", "claimed")  # type: ignore[method-assign]
    seize = PostgresStore.seize

    async def seized(self: PostgresStore, worker: str) -> bool:
        tell({"seat": worker})
        return await seize(self, worker)

    PostgresStore.seize = seized  # type: ignore[method-assign]


def main() -> None:
    """Become the command."""
    said = json.loads(sys.stdin.readline())
    skew, fuse = Skew(), Fuse()
    skew.by_s = said["skew_s"]
    skew.install()
    _fuse_store(fuse)
    threading.Thread(target=_listen, args=(fuse, skew), daemon=True).start()
    from stanchion.cli.main import main as stanchion

    stanchion(said["command"])


if __name__ == "__main__":
    main()
