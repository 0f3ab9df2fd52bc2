"""What a guard goes by: the words in which an agent's author says what tools mean, who may see what, and what is granted.

from stanchion.policy import Bound, Content, Destination, GuardRules
"""

from __future__ import annotations

from stanchion.core.policy import (
    Bound,
    CheckRule,
    Content,
    Destination,
    Grant,
    GuardRules,
    Known,
    Level,
    Param,
    ResultField,
    Role,
)

__all__ = [
    "Bound",
    "CheckRule",
    "Content",
    "Destination",
    "Grant",
    "GuardRules",
    "Known",
    "Level",
    "Param",
    "ResultField",
    "Role",
]
