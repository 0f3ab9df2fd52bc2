"""The policies in force in a process, and beside them, for each run, those that its session began with.

A set is in the store, under its digest, before a journal names it. A set that a session began with and that cannot be read
any more allows nothing: nobody knows what it would have said.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from stanchion.core.errors import ConfigError
from stanchion.core.state import State
from stanchion.guard.both import Unreadable, digests_of, in_force
from stanchion.guard.standing import Policies
from stanchion.journal.store import Store

log = logging.getLogger("stanchion.engine")

_KEPT = 16
"""Sets of sessions that are remembered."""
ReadPolicies = Callable[[bytes], Policies]
"""Makes policies of a set as it is stored. Raises `ConfigError`."""


class ActiveSet(msgspec.Struct, frozen=True):
    """A set that is in force: parsed, and as it is stored."""

    policies: Policies
    body: bytes


class Policing:
    """Finds the policies by which the runs of one process are judged."""

    def __init__(self, store: Store, read: ReadPolicies, active: ActiveSet | None = None) -> None:
        self._store = store
        self._read = read
        self._active = active
        self._stored: set[str] = set()
        """Tenants whose part of the store has the active set."""
        self._turn = asyncio.Lock()
        self._known: OrderedDict[str, Policies] = OrderedDict()

    @property
    def active(self) -> Policies | None:
        """The set that is in force; None: there is none."""
        return self._active.policies if self._active is not None else None

    async def activate(self, wanted: ActiveSet) -> None:
        """Put another set in force: for every run here from its next decision on."""
        async with self._turn:
            for tenant in sorted(self._stored):
                await self._store.put_bundle(tenant, wanted.policies.digest, wanted.body)
            self._active = wanted

    async def of(self, tenant: str, state: State) -> InForce:
        """Give what a run is judged by, as it began or is taken up again."""
        if tenant not in self._stored:
            async with self._turn:
                if self._active is not None and tenant not in self._stored:
                    await self._store.put_bundle(tenant, self._active.policies.digest, self._active.body)
                self._stored.add(tenant)
        digest = state.pinned or next(iter(digests_of(state.policy)), "")
        return InForce(self, await self.find(tenant, digest) if digest else None)

    async def find(self, tenant: str, digest: str) -> Policies:
        """Find a set by its digest; one that cannot be read allows nothing."""
        if self.active is not None and self.active.digest == digest:
            return self.active
        known = self._known.get(digest)
        if known is None:
            known = await self._found(tenant, digest)
            if not isinstance(known, Unreadable):
                self._known[digest] = known
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return known

    async def _found(self, tenant: str, digest: str) -> Policies:
        body = await self._store.bundle(tenant, digest)
        try:
            policies = None if body is None else self._read(body)
        except ConfigError as error:
            return self._unreadable(digest, str(error))
        if policies is None:
            return self._unreadable(digest, "they are not in the store")
        if policies.digest != digest:
            return self._unreadable(digest, "what the store has under this digest is something else")
        return policies

    def _unreadable(self, digest: str, why: str) -> Unreadable:
        text = f"the policies {digest[:12]} cannot be read, so that they allow nothing: {why}"
        log.error("%s", text)
        return Unreadable(digest, f"{text}; begin a new session, or restore the store")


class InForce:
    """What one run is judged by: the set that its session began with, and the active one."""

    def __init__(self, policing: Policing, began: Policies | None) -> None:
        self._policing = policing
        self._began = began
        self._active: Policies | None = None
        self._made: Policies | None = began

    def now(self) -> Policies | None:
        """Give the policies of this moment. A session that had none yet keeps to the first that it meets."""
        active = self._policing.active
        if active is not self._active:
            self._began = self._began or active
            self._active, self._made = active, in_force(self._began, active)
        return self._made
