"""How an agent with many tools shows a few of them, and has the others found.

from stanchion.catalogue import ToolSearch
"""

from __future__ import annotations

from stanchion.core.bundle import ToolSearch

__all__ = ["ToolSearch"]
