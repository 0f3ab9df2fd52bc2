"""What tools need besides their arguments (a database, a client, a tenant's settings), by type, without globals.

`deps` maps a type to one of these, tried in this order:

    an instance of the type        used as it is; whoever made it closes it
    a context manager              entered when the registry opens, left when it closes; once per process
    a function or a class          called for every call (with the `ToolContext` if it takes one parameter); what it
                                   gives may be the value, an awaitable of it, or a context manager held during the call
    anything else                  used as it is (a test's double, a protocol's implementation)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, cast

from stanchion.core.errors import ConfigError
from stanchion.toolbox.answer import ToolContext


@dataclass(frozen=True, slots=True)
class _Factory:
    """Makes a dependency for one call."""

    make: Callable[..., Any]
    takes_context: bool


class Dependencies:
    """The dependencies of one agent; opened once, then asked in every call."""

    def __init__(self, deps: Mapping[type, Any]) -> None:
        self.types = frozenset(deps)
        self._values: dict[type, Any] = {}
        self._managers: dict[type, Any] = {}
        self._factories: dict[type, _Factory] = {}
        for wanted, given in deps.items():
            if not isinstance(cast("object", wanted), type):
                raise ConfigError(
                    f"deps: {wanted!r} is not a class; the keys of `deps` are the types that tools ask for"
                )
            self._sort(wanted, given)

    def _sort(self, wanted: type, given: Any) -> None:
        if _is_instance(given, wanted):
            self._values[wanted] = given
        elif _is_manager(given):
            self._managers[wanted] = given
        elif inspect.isroutine(given) or inspect.isclass(given) or isinstance(given, functools.partial):
            make = cast("Callable[..., Any]", given)
            self._factories[wanted] = _Factory(make, _takes_context(wanted, make))
        else:
            self._values[wanted] = given

    async def open(self, stack: AsyncExitStack) -> None:
        """Enter what lives as long as the process; `stack` leaves it again."""
        for wanted, manager in self._managers.items():
            try:
                self._values[wanted] = await _enter(manager, stack)
            except Exception as error:
                error.add_note(f"while opening the dependency {wanted.__name__} of the agent's tools")
                raise

    def made_per_call(self, wanted: type) -> bool:
        """Tell whether a dependency is made anew for every call, and needs a stack to end with it."""
        return wanted in self._factories

    def held(self, wanted: type) -> Any:
        """Give a dependency that lives as long as the process."""
        if wanted not in self._values:
            raise ConfigError(f"the dependency {wanted.__name__} is not open; use the registry in `async with`")
        return self._values[wanted]

    async def get(self, wanted: type, context: ToolContext, stack: AsyncExitStack) -> Any:
        """Give a dependency for one call; `stack` ends what was made for it."""
        factory = self._factories.get(wanted)
        if factory is None:
            return self.held(wanted)
        made = factory.make(context) if factory.takes_context else factory.make()
        if inspect.isawaitable(made):
            made = await made
        if not _is_instance(made, wanted) and _is_manager(made):
            return await _enter(made, stack)
        return made


async def _enter(manager: Any, stack: AsyncExitStack) -> Any:
    if isinstance(manager, AbstractAsyncContextManager):
        return await stack.enter_async_context(cast("AbstractAsyncContextManager[Any]", manager))
    return stack.enter_context(cast("AbstractContextManager[Any]", manager))


def _is_manager(given: Any) -> bool:
    return not isinstance(given, type) and isinstance(given, AbstractAsyncContextManager | AbstractContextManager)


def _is_instance(given: Any, wanted: type) -> bool:
    try:
        return isinstance(given, wanted)
    except TypeError:  # a protocol that cannot be asked
        return False


def _takes_context(wanted: type, make: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return False
    required = [found for found in parameters if found.default is found.empty and found.kind not in _REST]
    if len(required) > 1 or any(found.kind is found.KEYWORD_ONLY for found in required):
        raise ConfigError(
            f"deps: {make!r}, which makes {wanted.__name__}, must take nothing, or the ToolContext alone; "
            f"it takes {', '.join(found.name for found in required)}"
        )
    return len(required) == 1


_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
