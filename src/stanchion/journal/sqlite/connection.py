"""What we use of an apsw connection, with types: apsw's own say nothing of what a row holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Value = str | bytes | int | float | None


class Connection(Protocol):
    """A connection to the file."""

    def execute(self, statements: str, bindings: Sequence[Value] = (), /) -> Any:
        """Run a statement; the cursor it returns gives the rows."""
        ...

    def pragma(self, name: str, value: int | str = ..., /) -> Any:
        """Read or set a pragma."""
        ...

    def set_busy_timeout(self, milliseconds: int, /) -> None:
        """Set how long to wait for another's lock."""
        ...

    def changes(self) -> int:
        """Rows that the last statement changed."""
        ...

    def last_insert_rowid(self) -> int:
        """Number of the row inserted last."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    def close(self, force: bool = False, /) -> None:
        """Close; forced: whatever it says."""
        ...
