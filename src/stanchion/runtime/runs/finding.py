"""Find what a caller names, run or session, and the state that a session stands in."""

from __future__ import annotations

from stanchion.core.bundle import Bundle, decode_bundle
from stanchion.core.errors import NotFound
from stanchion.core.state import State
from stanchion.engine.load import Loader
from stanchion.journal.store import RunRow, SessionRow, Store


async def row_of(store: Store, tenant: str, run: str) -> RunRow:
    """Read a run's row. Raises `NotFound`."""
    row = await store.run(tenant, run)
    if row is None:
        raise NotFound(f"there is no run {run!r}; list them with: stanchion runs ls", field="run")
    return row


async def session_of(store: Store, tenant: str, session: str) -> SessionRow:
    """Read a session's row. Raises `NotFound`."""
    row = await store.session(tenant, session)
    if row is None:
        raise NotFound(f"there is no session {session!r}", field="session")
    return row


async def bundle_of(store: Store, tenant: str, digest: str) -> Bundle | None:
    """Read a bundle. None: it is not stored here."""
    body = await store.bundle(tenant, digest)
    return None if body is None else decode_bundle(body)


async def standing_of(loader: Loader, session: SessionRow) -> State:
    """Fold a session as it stands: its live run, or the last that ended."""
    state = await loader.load(session.tenant, session.live) if session.live else State()
    return state if state.seq else await loader.base(session.tenant, session.head)
