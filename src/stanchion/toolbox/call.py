"""Call a tool's function: fill in what it asks for, bound it in time, and say what came of it.

`Call.run` raises nothing but `asyncio.CancelledError`, and that only when the caller was cancelled. A plain function runs
in a thread; an `async` one on the event loop, which it must not block.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from stanchion.core.bundle import ToolSpec
from stanchion.core.credential import Credential, Needs
from stanchion.core.errors import CredentialError, NotDone, ToolError
from stanchion.toolbox.answer import Answer, Done, Failure, Problem, Reconciled, ToolContext, Undone, Unknown
from stanchion.toolbox.arguments import Arguments
from stanchion.toolbox.dependency import Dependencies
from stanchion.toolbox.failure import failure_of, say, timed_out
from stanchion.toolbox.result import ResultType
from stanchion.toolbox.threads import Threads

Mint = Callable[[Needs], Awaitable[Credential]]
"""Makes the credential for one attempt. Raises `CredentialError`."""


@dataclass(frozen=True, slots=True)
class Routine:
    """A function and how it is filled in: a tool's own, its reconciler's, or its dry run's."""

    function: Callable[..., Any]
    is_async: bool
    arguments: tuple[str, ...]
    contexts: tuple[str, ...]
    dependencies: tuple[tuple[str, type], ...]
    takes_key: bool
    credentials: tuple[tuple[str, Needs], ...] = ()


@dataclass(slots=True)
class _Release:
    """Whether the function was called at all: until then nothing can have been done."""

    released: bool = False

    def now(self) -> None:
        self.released = True


class Call:
    """How one tool is called, made once for a registry."""

    def __init__(
        self, spec: ToolSpec, routine: Routine, arguments: Arguments, returns: ResultType, *, max_concurrency: int
    ) -> None:
        self.spec = spec
        self._routine = routine
        self._arguments = arguments
        self._returns = returns
        self._slots = asyncio.Semaphore(max_concurrency) if max_concurrency else None

    async def run(
        self, arguments: bytes, context: ToolContext, deps: Dependencies, threads: Threads, mint: Mint | None = None
    ) -> Answer | Failure:
        """Make one attempt."""
        values = self._read(arguments, context)
        if isinstance(values, Failure):
            return values
        release = _Release()
        returned = await self._attempt(self._routine, values, context, deps, threads, release, mint)
        return returned if isinstance(returned, Failure) else self._returns.answer(returned.value, self.spec)

    async def dry(
        self,
        routine: Routine,
        arguments: bytes,
        context: ToolContext,
        deps: Dependencies,
        threads: Threads,
        mint: Mint | None = None,
    ) -> Answer | Failure:
        """Ask the tool's own dry run for an answer. It has no effect, so it is never in doubt."""
        values = self._read(arguments, context)
        if isinstance(values, Failure):
            return values
        returned = await self._attempt(routine, values, context, deps, threads, _Release(), mint)
        answer = returned if isinstance(returned, Failure) else self._returns.answer(returned.value, self.spec)
        if isinstance(answer, Failure):
            return Failure(answer.code, answer.text, retryable=answer.retryable, retry_after_s=answer.retry_after_s)
        return answer

    async def reconcile(
        self,
        routine: Routine,
        arguments: bytes,
        context: ToolContext,
        deps: Dependencies,
        threads: Threads,
        mint: Mint | None = None,
    ) -> Reconciled:
        """Ask the tool whether a call in doubt was done. Whatever is not a clear answer is "unknown"."""
        values = self._read(arguments, context)
        if isinstance(values, Failure):
            return Reconciled("unknown", values.text)
        returned = await self._attempt(routine, values, context, deps, threads, _Release(), mint, not_done=True)
        if isinstance(returned, Failure):
            return Reconciled("unknown", returned.text)
        match returned.value:
            case Done(result):
                answer = self._returns.answer(result, self.spec)
                return Reconciled("done", answer.text)
            case Undone(reason):
                return Reconciled("not_done", reason)
            case Unknown(reason):
                return Reconciled("unknown", reason)
            case other:
                kind = type(other).__name__
                return Reconciled(
                    "unknown", f"the reconciler of {self.spec.name} returned a {kind}, not Done or Undone"
                )

    def _read(self, arguments: bytes, context: ToolContext) -> dict[str, Any] | Failure:
        if self.spec.keyed and not context.key:
            return Failure("no_key", f"{self.spec.name} was called without its idempotency key, so it was not run.")
        try:
            return self._arguments.values(arguments)
        except Exception as error:
            problem = self._arguments.check(arguments.decode(errors="replace"))
            text = problem.text if isinstance(problem, Problem) else say(error)
            return Failure("invalid_arguments", text)

    async def _attempt(
        self,
        routine: Routine,
        values: dict[str, Any],
        context: ToolContext,
        deps: Dependencies,
        threads: Threads,
        release: _Release,
        mint: Mint | None,
        *,
        not_done: bool = False,
    ) -> _Returned | Failure:
        """Call a routine within the tool's time, its wait for a slot included. `not_done`: NotDone is an answer."""
        scope = asyncio.timeout(self.spec.timeout_s)
        try:
            async with scope, self._slots or contextlib.nullcontext():
                return _Returned(await _invoke(routine, values, context, deps, threads, release, mint))
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            return failure_of(error, self.spec, released=release.released)
        except GeneratorExit:  # the coroutine itself is being closed
            raise
        except BaseException as error:
            if not_done and isinstance(error, NotDone):
                return _Returned(Undone(say(error)))
            if scope.expired() and not isinstance(error, ToolError):
                return timed_out(self.spec, released=release.released)
            failure = failure_of(error, self.spec, released=release.released)
            if release.released or failure.code != "tool_crashed":
                return failure
            text = f"What {self.spec.name} needs could not be had: {failure.text}"
            return Failure("dependency_failed", text, retryable=True)


@dataclass(frozen=True, slots=True)
class _Returned:
    """What a function returned, told apart from a failure of ours."""

    value: Any


async def _invoke(
    routine: Routine,
    values: dict[str, Any],
    context: ToolContext,
    deps: Dependencies,
    threads: Threads,
    release: _Release,
    mint: Mint | None,
) -> Any:
    given = {name: values[name] for name in routine.arguments}
    for name in routine.contexts:
        given[name] = context
    if routine.takes_key:
        given["key"] = context.key
    for name, needs in routine.credentials:
        given[name] = await _minted(needs, mint)
    if not any(deps.made_per_call(wanted) for _, wanted in routine.dependencies):
        for name, wanted in routine.dependencies:
            given[name] = deps.held(wanted)
        return await _call(routine, given, threads, release)
    async with AsyncExitStack() as stack:
        for name, wanted in routine.dependencies:
            given[name] = await deps.get(wanted, context, stack)
        return await _call(routine, given, threads, release)
    raise RuntimeError("a dependency swallowed the exception of the tool")


async def _minted(needs: Needs, mint: Mint | None) -> Credential:
    if mint is None:
        raise CredentialError(f"nobody makes the credential {needs.name!r} here", code="credential_missing")
    return await mint(needs)


async def _call(routine: Routine, given: dict[str, Any], threads: Threads, release: _Release) -> Any:
    if routine.is_async:
        release.now()
        return await routine.function(**given)
    returned = await threads.run(functools.partial(routine.function, **given), release.now)
    return await returned if inspect.isawaitable(returned) else returned


def _is_cancelled() -> bool:
    """Tell whether the running task itself was asked to stop; a tool may also leak the end of a task of its own."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
