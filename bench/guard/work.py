"""What a process of a replay does: it reads a run and replays it."""

from __future__ import annotations

import contextlib
import io

from bench.guard.accounting import Outcome
from bench.guard.recordings import recording
from bench.guard.replay import replay

_asked: list[tuple[str, tuple[str, ...], tuple[str, ...], bool]] = []


def begin(variant: str, suites: tuple[str, ...], kinds: tuple[str, ...], turned: bool) -> None:
    """Say once what this process replays; no kinds: all. `turned`: no attack that failed when it was recorded."""
    _asked[:] = [(variant, suites, kinds, turned)]


def one(line: bytes) -> Outcome | None:
    """Replay one run; None: its suite or its kind is not asked for."""
    variant, suites, kinds, turned = _asked[0]
    run = recording(line)
    if run.suite not in suites or (kinds and run.kind not in kinds):
        return None
    if turned and run.kind == "attack" and not run.succeeded:
        return Outcome(run.path, run.suite, run.kind, run.task, run.injection, run.attack)
    with contextlib.redirect_stdout(io.StringIO()):  # some checkers print
        return replay(run, variant)
