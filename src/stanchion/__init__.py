"""Stanchion: the production runtime for LLM agents.

The public names, each imported when it is first used, so that `import stanchion` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stanchion.agent import Agent, Approve, Limits, Model
    from stanchion.core.bundle import LoopRules
    from stanchion.core.errors import ConfigError, InputError, NotDone, StanchionError, ToolError
    from stanchion.core.money import price_usd
    from stanchion.engine.signature import verify_webhook
    from stanchion.runtime import Runtime, RunView
    from stanchion.toolbox.answer import Done, Inject, Partial, Result, ToolContext, Undone, Unknown
    from stanchion.toolbox.function import tool
    from stanchion.toolbox.options import Breaker

_HOMES = {
    "Agent": "stanchion.agent",
    "Approve": "stanchion.agent",
    "Breaker": "stanchion.toolbox.options",
    "ConfigError": "stanchion.core.errors",
    "Done": "stanchion.toolbox.answer",
    "Inject": "stanchion.toolbox.answer",
    "InputError": "stanchion.core.errors",
    "Limits": "stanchion.agent",
    "LoopRules": "stanchion.core.bundle",
    "Model": "stanchion.agent",
    "NotDone": "stanchion.core.errors",
    "Partial": "stanchion.toolbox.answer",
    "Result": "stanchion.toolbox.answer",
    "RunView": "stanchion.runtime",
    "Runtime": "stanchion.runtime",
    "StanchionError": "stanchion.core.errors",
    "ToolContext": "stanchion.toolbox.answer",
    "ToolError": "stanchion.core.errors",
    "Undone": "stanchion.toolbox.answer",
    "Unknown": "stanchion.toolbox.answer",
    "price_usd": "stanchion.core.money",
    "tool": "stanchion.toolbox.function",
    "verify_webhook": "stanchion.engine.signature",
}

__all__ = [  # noqa: RUF022 - sorted by what a reader meets first
    "Agent",
    "Limits",
    "Model",
    "Approve",
    "LoopRules",
    "price_usd",
    "tool",
    "Breaker",
    "ToolContext",
    "Inject",
    "Result",
    "Partial",
    "Done",
    "Undone",
    "Unknown",
    "Runtime",
    "RunView",
    "verify_webhook",
    "StanchionError",
    "ConfigError",
    "InputError",
    "ToolError",
    "NotDone",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stanchion' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
