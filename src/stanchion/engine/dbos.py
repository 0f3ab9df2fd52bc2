"""The engine that brings hints by DBOS (extra `dbos`): one activation of a run is one coarse workflow.

DBOS is liveness only. Its workflow claims the run and drives it from the journal; nothing of DBOS's recovery, fencing or
cancellation is relied on, and none of an agent's steps is one of DBOS's. The rows stay the truth and the sweeper over them
the safety net (`RowsEngine`), since DBOS does not take over what a dead process was driving.

What DBOS needs to be told, each learned the hard way: an `executor_id` of this process start's own (the default lets two
workers steal each other's live runs); an `application_version` that never changes (the default strands what was queued
at a deploy); no limits on its queues (rows of dead processes keep counting); its own SQLite settings (it would take
journal_mode=delete); and the event loop's default executor, which it replaces, must be replaced again before it shuts
that down, or nothing of the program can go to a thread any more. A parked run keeps no workflow. Interactive runs start directly, batch runs through a queue, which is
polled by a thread. DBOS is one per process, so this is too.

Why this is not the default: design/engine.md.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from stanchion.core.errors import ConfigError, JournalError
from stanchion.engine.clock import Clock
from stanchion.engine.port import Driver, MakeEngine
from stanchion.engine.rows import RowsEngine
from stanchion.journal.share import INTERACTIVE
from stanchion.journal.store import Store

log = logging.getLogger("stanchion.engine")

BATCH_QUEUE = "stanchion-batch"
POLL_S = 0.2
_VERSION = "stanchion-1"
_SQLITE_BUSY_S = 10.0
_here: dict[str, Driver] = {}
"""The driver of this process, which DBOS's workflows find by no other way."""


def dbos_engine(url: str, *, schema: str = "stanchion_dbos") -> MakeEngine:
    """Give what makes the engine. `url`: DBOS's database, postgresql://.. or sqlite:///path. Raises `ConfigError`."""
    try:
        import_module("dbos")
    except ImportError as error:
        raise ConfigError('this engine needs DBOS: pip install "stanchion[dbos]"') from error
    return lambda store, clock: DbosEngine(store, clock, url, schema=schema)


async def _activate(tenant: str, run: str) -> None:
    """Be the workflow: drive a run for as long as this process has it."""
    driver = _here.get("driver")
    if driver is not None:
        await driver.activate(tenant, run).wait()


class DbosEngine:
    """Brings hints as workflows of DBOS."""

    def __init__(self, store: Store, clock: Clock, url: str, *, schema: str) -> None:
        self._store = store
        self._rows = RowsEngine(store, clock)
        self._url = url
        self._schema = schema
        self._dbos: Any = None
        self._workflow: Any = None
        self._carried: set[asyncio.Task[None]] = set()

    async def open(self, driver: Driver) -> None:
        """Begin. Raises `ConfigError` where another engine of this process is open."""
        if "driver" in _here:
            raise ConfigError("DBOS is one per process, and this one has it open already")
        _here["driver"] = driver
        module = import_module("dbos")
        self._dbos = module.DBOS
        self._dbos(config=self._config())
        self._workflow = self._dbos.workflow(name="stanchion.activate")(_activate)
        self._dbos.launch()  # in this thread, so that DBOS runs its workflows in this event loop
        await self._dbos.register_queue_async(BATCH_QUEUE, polling_interval_sec=POLL_S)
        await self._rows.open(driver)

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": "stanchion",
            "system_database_url": self._url,
            "dbos_system_schema": self._schema,
            "executor_id": secrets.token_urlsafe(9),
            "application_version": _VERSION,
            "log_level": "ERROR",
        }
        if self._url.startswith("sqlite"):
            config["system_database_engine"] = _sqlite(self._url)
        return config

    def hint(self, tenant: str, run: str) -> None:
        """Start a workflow that activates the run, or put it into the queue."""
        if self._dbos is not None:
            task = asyncio.create_task(self._carry(tenant, run))
            self._carried.add(task)
            task.add_done_callback(self._carried.discard)

    async def _carry(self, tenant: str, run: str) -> None:
        try:
            row = await self._store.run(tenant, run)
            if row is None:
                return
            if row.priority >= INTERACTIVE:
                await self._dbos.start_workflow_async(self._workflow, tenant, run)
            else:
                await self._dbos.enqueue_workflow_async(BATCH_QUEUE, self._workflow, tenant, run)
        except JournalError as error:
            log.warning("a hint for run %s was lost: %s", run, error, extra={"tenant": tenant})
        except Exception:  # the sweeper finds it
            log.exception("DBOS did not take a hint for run %s", run, extra={"tenant": tenant})

    def look(self) -> None:
        """Look at the rows now."""
        self._rows.look()

    async def aclose(self) -> None:
        """Take up nothing more. What DBOS's workflows wait for goes on without them."""
        await self._rows.aclose()
        if self._dbos is None:
            return
        dbos, self._dbos = self._dbos, None
        _here.pop("driver", None)
        for task in list(self._carried):
            task.cancel()
        await asyncio.gather(*self._carried, return_exceptions=True)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        await asyncio.to_thread(dbos.destroy, destroy_registry=True)


def _sqlite(url: str) -> Any:
    """Make an engine for SQLite that writes ahead and waits for locks."""
    alchemy = import_module("sqlalchemy")
    engine = alchemy.create_engine(url, connect_args={"timeout": _SQLITE_BUSY_S, "check_same_thread": False})

    def prepare(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    alchemy.event.listen(engine, "connect", prepare)
    return engine
