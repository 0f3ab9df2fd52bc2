"""The scale-out store keeps the port's contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stanchion.journal.postgres import PostgresStore
from stanchion.testing.store import CHECKS, exercise, exercise_store
from stanchion.testing.store_driver import Check


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, dsn: str) -> None:
    """Every check of the suite holds."""
    await exercise(check, lambda: PostgresStore.open(dsn))


async def test_the_suite_fails_on_a_store_that_is_wrong(fresh_dsn: Callable[[], str]) -> None:
    """A store that forgets to check the epoch does not pass."""

    class Forgetful(PostgresStore):
        async def append(self, append):  # type: ignore[no-untyped-def]
            row = await self.run(append.tenant, append.run)
            fixed = {name: getattr(append, name) for name in append.__struct_fields__}
            return await super().append(type(append)(**{**fixed, "epoch": row.epoch if row else 0}))

    with pytest.raises(AssertionError, match="a_stale_epoch_is_refused_whole"):
        await exercise_store(lambda: Forgetful.open(fresh_dsn()))
