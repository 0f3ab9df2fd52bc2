"""The tools of one agent: found by name, checked, and called with the agent's dependencies.

Names are unique. `async with registry:` opens what lives as long as the process and closes it. The built-in tools are listed and
checked here; the loop answers them itself, from the journal, or has a model answer (`extract`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, cast

from stanchion.core.bundle import ToolSpec
from stanchion.core.errors import ConfigError
from stanchion.core.remembered import MemoryRules
from stanchion.toolbox.answer import Answer, Checked, Failure, Problem, Reconciled, ToolContext
from stanchion.toolbox.builtin import built_in
from stanchion.toolbox.call import Mint
from stanchion.toolbox.dependency import Dependencies
from stanchion.toolbox.function import Bound, Tool
from stanchion.toolbox.options import EFFECTS, ToolLimits
from stanchion.toolbox.threads import Threads

THREADS = 32
"""Plain functions that run at once in a process."""


class Registry:
    """The tools of an agent and their dependencies."""

    def __init__(
        self,
        tools: Iterable[object] = (),
        deps: Mapping[type, Any] | None = None,
        *,
        threads: int = THREADS,
        freeze: bool = False,
        quarantine: bool = False,
        skills: bool = False,
        search: bool = False,
        history: bool = False,
        memory: MemoryRules | None = None,
    ) -> None:
        """`freeze`, `quarantine`: as in the agent's `GuardRules`, for what it has beside its own tools. `skills`: it has some.
        `search`: some of its tools are not shown, and found. `history`: its conversations are compacted. `memory`: what it remembers.
        """
        self._deps = Dependencies(deps or {})
        self._threads = Threads(threads)
        self._stack = AsyncExitStack()
        self._tools: dict[str, Tool[..., Any]] = {}
        self._bound: dict[str, Bound] = {}
        for given in tools:
            self._add(_as_tool(given))
        groups = [bound.spec.group for bound in self._bound.values()]
        self._built_in = built_in(
            freeze=freeze,
            quarantine=quarantine,
            skills=skills,
            search=search,
            groups=groups,
            history=history,
            memory=memory,
        )
        made = (one.spec for one in self._built_in.values())
        self.specs: tuple[ToolSpec, ...] = (*(bound.spec for bound in self._bound.values()), *made)
        """In the order given, the built-in last."""

    def _add(self, tool: Tool[..., Any]) -> None:
        other = self._tools.get(tool.name)
        if other is not None:
            raise ConfigError(
                f"two tools are named {tool.name!r}: {_where(other)} and {_where(tool)}; set another with name="
            )
        self._tools[tool.name] = tool
        self._bound[tool.name] = tool.bind(self._deps.types)

    async def __aenter__(self) -> Registry:
        """Open the dependencies that live as long as the process."""
        async with AsyncExitStack() as stack:
            await self._deps.open(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close them, and let idle threads end."""
        self._threads.close()
        await self._stack.__aexit__(kind, error, trace)

    def tool(self, name: str) -> Tool[..., Any] | None:
        """Find a tool by name."""
        return self._tools.get(name)

    def limits(self, name: str) -> ToolLimits | None:
        """What all workers together may do with a tool; None: there is no limit."""
        tool = self._tools.get(name)
        return None if tool is None else tool.limits

    def check(self, name: str, arguments: str) -> Checked | Problem:
        """Check a call that a model proposes. Pure; never raises."""
        bound = self._bound.get(name)
        if bound is not None:
            return bound.arguments.check(arguments)
        if name in self._built_in:
            return self._built_in[name].arguments.check(arguments)
        close = difflib.get_close_matches(name, self._bound, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        return Problem(f"There is no tool {name[:64]!r}.{meant} The tools are: {', '.join(self._bound) or 'none'}.")

    async def run(
        self, name: str, arguments: bytes, context: ToolContext, mint: Mint | None = None
    ) -> Answer | Failure:
        """Make one attempt at a checked call. Raises nothing but `asyncio.CancelledError`. `mint` makes its credentials."""
        bound = self._bound.get(name)
        if bound is None:
            return _no_tool(name)
        return await bound.call.run(arguments, context, self._deps, self._threads, mint)

    async def reconcile(
        self, name: str, arguments: bytes, context: ToolContext, mint: Mint | None = None
    ) -> Reconciled:
        """Ask a tool whether a call in doubt was done."""
        bound = self._bound.get(name)
        if bound is None or bound.reconciler is None:
            return Reconciled("unknown", f"{name} has no reconciler.")
        return await bound.call.reconcile(bound.reconciler, arguments, context, self._deps, self._threads, mint)

    async def dry_run(
        self, name: str, arguments: bytes, context: ToolContext, mint: Mint | None = None
    ) -> Answer | Failure:
        """Answer a call without its effect: by the tool's own dry run, by a real read, or by saying what was not done."""
        bound = self._bound.get(name)
        if bound is None:
            return _no_tool(name)
        if bound.dry_run is not None:
            return await bound.call.dry(bound.dry_run, arguments, context, self._deps, self._threads, mint)
        if bound.spec.effect == "read":
            return await bound.call.run(arguments, context, self._deps, self._threads, mint)
        return Answer(f"This is a dry run: {name} was not called and nothing was done. Go on as if it had succeeded.")


def _as_tool(given: object) -> Tool[..., Any]:
    if isinstance(given, Tool):
        return cast("Tool[..., Any]", given)
    if callable(given):
        name = getattr(given, "__name__", repr(given))
        raise ConfigError(
            f"tools: {name!r} is a plain function; say what it does to the world: decorate it with "
            f"@tool(effect=...), one of {', '.join(map(repr, EFFECTS))}"
        )
    raise ConfigError(f"tools: {given!r} is not a tool; decorate a function with @tool(effect=...)")


def _where(tool: Tool[..., Any]) -> str:
    function: Any = tool.function
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


def _no_tool(name: str) -> Failure:
    return Failure("unknown_tool", f"There is no tool {name!r} that can be run.")
