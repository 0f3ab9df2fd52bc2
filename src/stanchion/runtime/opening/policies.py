"""The policies of a process: read from files when it starts, and again whenever the files change.

A set that cannot be read, or does not fit the tools that are served, is refused whole: at the start with an error, later with a
line in the log while the set before it stays in force.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stanchion.core.bundle import Bundle
from stanchion.core.errors import ConfigError
from stanchion.engine.policing import ActiveSet, Policing
from stanchion.guard.both import Unreadable, digests_of, in_force
from stanchion.guard.standing import Policies

if TYPE_CHECKING:
    from stanchion.cedar.policies import CedarPolicies

log = logging.getLogger("stanchion.runtime")

ENVIRONMENT = "STANCHION_POLICIES"
LOOK_S = 2.0
"""How often the files are looked at."""
Places = str | Path | Sequence[str | Path]


def places_of(given: Places, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """List the files and folders that hold the policies: as given, or else as `STANCHION_POLICIES` says."""
    if not given:
        return tuple(map(Path, filter(None, environment.get(ENVIRONMENT, "").split(os.pathsep))))
    return (Path(given),) if isinstance(given, str | Path) else tuple(map(Path, given))


def read_policies(body: bytes) -> CedarPolicies:
    """Make policies of a set as it is stored. Raises `ConfigError`."""
    from stanchion.cedar.policies import CedarPolicies
    from stanchion.cedar.source import decode

    return CedarPolicies(decode(body))


def load_policies(places: Sequence[str | Path], bundles: Sequence[Bundle]) -> CedarPolicies:
    """Read a set from files and hold it against the tools of agents. Raises `ConfigError` with file and line."""
    from stanchion.cedar.policies import CedarPolicies, refuse
    from stanchion.cedar.source import read_files

    policies = CedarPolicies(read_files(places))
    if bundles:
        refuse(policies.problems(bundles))
    return policies


async def recorded(policing: Policing, tenant: str, digest: str) -> Policies | None:
    """Find the policies that a journal names. None: they cannot be read here."""
    found = [await policing.find(tenant, one) for one in digests_of(digest)]
    if not found or any(isinstance(policies, Unreadable) for policies in found):
        return None
    return in_force(found[0], found[-1])


class PolicyFiles:
    """The files that hold the active set, and the watch over them."""

    def __init__(self, places: Sequence[Path], bundles: Sequence[Bundle], policing: Policing) -> None:
        self._places = places
        self._bundles = bundles
        self._policing = policing
        self._seen: object = None
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def reload(self) -> str:
        """Read the files and put what they say in force; give its digest. Raises `ConfigError`: then nothing changes."""
        async with self._turn:
            seen = _stamp(self._places)
            policies = await asyncio.to_thread(load_policies, self._places, self._bundles)
            active = self._policing.active
            if active is None or active.digest != policies.digest:
                await self._policing.activate(ActiveSet(policies, policies.text.encode()))
                log.info("policies %s are in force (%d)", policies.digest, len(policies.policies))
            self._seen = seen
            return policies.digest

    def open(self) -> None:
        """Begin to watch the files."""
        self._task = asyncio.create_task(self._watch(), name="stanchion-policies")

    async def aclose(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        refused: object = None
        while True:
            await asyncio.sleep(LOOK_S)
            stamp = _stamp(self._places)
            if stamp in (self._seen, refused):
                continue
            try:
                await self.reload()
            except ConfigError as error:
                refused = stamp
                log.error("the policies that were in force stay: %s", error)
            except Exception:  # the store may be away; the next look tries again
                log.exception("the policies could not be put in force; this is tried again")


async def put_in_force(places: Sequence[Path], bundles: Sequence[Bundle], policing: Policing) -> PolicyFiles | None:
    """Put the policies of some files in force. None: there are no files. Raises `ConfigError`."""
    files = PolicyFiles(places, bundles, policing) if places else None
    if files is not None:
        await files.reload()
    return files


def _stamp(places: Sequence[Path]) -> object:
    """Tell files from how they were before, without reading them."""
    from stanchion.cedar.source import paths_of

    try:
        return tuple((str(path), (stat := path.stat()).st_mtime_ns, stat.st_size) for path in paths_of(places))
    except (ConfigError, OSError) as error:
        return str(error)
