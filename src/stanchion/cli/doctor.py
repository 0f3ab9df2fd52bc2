"""`stanchion doctor`: try what this machine can do, and say how to mend what it cannot.

Each check tries the thing itself and gives one `Finding`. A check that breaks is a finding too.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from stanchion.cli import checkup
from stanchion.cli.checkup import Finding
from stanchion.cli.desk import Where
from stanchion.cli.errors import ExitCode
from stanchion.cli.options import Data, Output
from stanchion.cli.output import Column, print_json, table

if TYPE_CHECKING:
    import apsw

COLUMNS: tuple[Column, ...] = (
    ("", lambda finding: finding["level"]),
    ("check", lambda finding: finding["check"]),
    ("found", lambda finding: finding["found"]),
    ("how to mend it", lambda finding: finding["mend"]),
)


def doctor(
    data: Data = "",
    port: Annotated[int, typer.Option(help="The port that a server is to listen on.", min=1, max=65535)] = 8420,
    output: Output = "text",
) -> None:
    """Try what this machine and its database can do, find runs that are stuck, and say how to mend it.

    \b
    Exit code 1 if something will not work.

    \b
    Examples:
        stanchion doctor
        stanchion doctor --data /srv/agents/stanchion.db --port 8080
        stanchion doctor --data postgresql://stanchion@db.internal/agents
        stanchion doctor -o json
    """
    place = Where(data=data).in_a_file().data
    findings = [_tried(name, check) for name, check in checks(place, port).items()]
    if is_database(place):
        findings += _tried_many("database", partial(checkup.database, place))
    findings += _tried_many("runs", partial(checkup.runs, place))
    failed = any(finding.level == "fail" for finding in findings)
    if output == "json":
        print_json({"ok": not failed, "findings": findings})
    else:
        table([msgspec.to_builtins(finding) for finding in findings], COLUMNS, empty="")
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def is_database(data: str) -> bool:
    """Tell whether a database is meant, and no file."""
    return data.startswith(("postgresql://", "postgres://"))


def checks(data: str, port: int) -> dict[str, Callable[[], Finding]]:
    """Everything that is tried of this machine, by name; of the data file only where there is one."""
    path = Path(data.removeprefix("sqlite:///"))
    folder = path.absolute().parent
    of_the_file: dict[str, Callable[[], Finding]] = {
        "sqlite": sqlite,
        "data directory": partial(writable, folder),
        "file system": partial(file_system, folder),
        "disk space": partial(disk_space, folder),
        "fsync": partial(fsync, folder),
        "data file": partial(data_file, path),
    }
    return {
        "python": python,
        **({} if is_database(data) else of_the_file),
        "port": partial(listen, port),
        "model keys": model_keys,
        "event loop": event_loop,
        "open files": open_files,
        "clock": partial(clock, Path() if is_database(data) else folder),
        "sandbox": sandbox,
    }


def _tried_many(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except Exception as error:
        return [Finding(name, "fail", f"the check itself failed: {type(error).__name__}: {error}")]


def _tried(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:
        return Finding(name, "fail", f"the check itself failed: {type(error).__name__}: {error}")


def python() -> Finding:
    """Say which it is. An older one than 3.11 cannot even start this program."""
    return Finding("python", "ok", f"Python {sys.version.split()[0]} ({sys.executable})")


WAL_RESET_MENDED = (3, 51, 3)
"""Before it, two connections that checkpoint at once could corrupt a file in WAL mode (sqlite.org/wal.html#walresetbug)."""


def sqlite() -> Finding:
    import apsw

    version = apsw.sqlite_lib_version()
    if tuple(int(piece) for piece in version.split(".")[:3]) < WAL_RESET_MENDED:
        return Finding(
            "sqlite", "fail", f"SQLite {version} can corrupt a file in WAL mode", "pip install --upgrade apsw"
        )
    return Finding("sqlite", "ok", f"SQLite {version}, bundled with apsw")


def writable(folder: Path) -> Finding:
    name = "data directory"
    if not folder.is_dir():
        return Finding(name, "fail", f"{folder} is not there", f"mkdir -p {folder}")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".stanchion-doctor-"):
            return Finding(name, "ok", f"{folder} can be written")
    except OSError as error:
        return Finding(
            name, "fail", f"{folder}: {error.strerror}", f"let {_me()} write there, or choose another --data"
        )


def _me() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "this user"


NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "fuse.sshfs",
    "fuse.s3fs",
}
PASSING = {
    "tmpfs": "its content is gone after a restart",
    "overlay": "in a container its content goes with the container",
}


def file_system(folder: Path) -> Finding:
    name, kind = "file system", _kind_of(folder)
    if kind in NETWORK:
        return Finding(
            name, "fail", f"{kind}: SQLite's locks do not hold over a network", "put the data file on a local disk"
        )
    if kind in PASSING:
        return Finding(name, "warn", f"{kind}: {PASSING[kind]}", "for data to keep, name a lasting volume with --data")
    return Finding(name, "ok", kind or "not known on this system")


def _kind_of(folder: Path) -> str:
    """The kind of the file system below a folder, by its longest mount point; "" where the system does not say."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    here = folder.resolve()
    found = [(point, kind) for _, point, kind, *_ in (line.split() for line in mounts) if here.is_relative_to(point)]
    return max(found, key=lambda mount: len(mount[0]), default=("", ""))[1]


MB = 1_000_000


def disk_space(folder: Path) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free
    found = f"{free / 1e9:.1f} GB free"
    if free < 100 * MB:
        return Finding("disk space", "fail", found, "free some space: a full disk stops every run")
    if free < 1000 * MB:
        return Finding("disk space", "warn", found, "free some space: journals only grow")
    return Finding("disk space", "ok", found)


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def fsync(folder: Path, times: int = 20) -> Finding:
    """Measure what one durable write costs: that is what an event waits for."""
    took_ms: list[float] = []
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".stanchion-doctor-") as file:
            for _ in range(times):
                began = time.perf_counter()
                file.write(b"x" * 4096)
                file.flush()
                os.fsync(file.fileno())
                took_ms.append((time.perf_counter() - began) * 1000)
    except OSError as error:
        return Finding("fsync", "fail", f"cannot be tried: {error.strerror}", "mend the data directory first")
    median_ms = statistics.median(took_ms)
    found = f"{median_ms:.2f} ms for a durable write (median of {times})"
    if median_ms > 20:
        return Finding("fsync", "warn", found, "a slow disk delays every step of a run; use a local SSD")
    return Finding("fsync", "ok", found)


def data_file(data: Path) -> Finding:
    """Look into the file that is there, without changing it."""
    import apsw

    from stanchion.runtime.opening.store import SQLITE_APPLICATION_ID

    name = "data file"
    if not data.exists():
        return Finding(name, "ok", f"{data} is not there yet; it is made on first use")
    if not _usable(data):
        return Finding(name, "fail", f"{data} cannot be read and written by {_me()}", "give it to the user who serves")
    try:
        connection = apsw.Connection(str(data), flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(2000)
        ours = _pragma(connection, "application_id") == [str(SQLITE_APPLICATION_ID)] or data.stat().st_size == 0
        said = _pragma(connection, "quick_check(1)")
        connection.close()
    except apsw.Error as error:
        return Finding(name, "fail", f"{data}: {error}", "restore it from a backup, or name another with --data")
    if not ours:
        return Finding(name, "fail", f"{data} is another program's database", "name another file with --data")
    if said != ["ok"]:
        return Finding(name, "fail", f"{data} is damaged: {said[0]}", "restore it from a backup")
    return Finding(name, "ok", f"{data}, {data.stat().st_size / MB:.1f} MB, sound")


def _pragma(connection: apsw.Connection, what: str) -> list[str]:
    return [str(row[0]) for row in connection.execute(f"PRAGMA {what}")]  # pyright: ignore[reportUnknownMemberType]


def _usable(data: Path) -> bool:
    """Try whether a file can be read and written: what the mode bits say does not hold for every user and mount."""
    try:
        os.close(os.open(data, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def listen(port: int) -> Finding:
    try:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(("127.0.0.1", port))
            tried.listen()
    except OSError as error:
        return Finding("port", "warn", f"127.0.0.1:{port}: {error.strerror}", "serve with another --port")
    return Finding("port", "ok", f"127.0.0.1:{port} is free")


KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL")


def model_keys() -> Finding:
    """Say which keys are set. A key is never shown."""
    others = sorted(
        name for name in os.environ if name.endswith("_API_KEY") and name not in (*KEYS, "STANCHION_API_KEY")
    )
    found = [name for name in (*KEYS, *others) if os.environ.get(name, "").strip()]
    if not found:
        return Finding(
            "model keys", "warn", "none is set", "export ANTHROPIC_API_KEY or OPENAI_API_KEY, or use --simulated"
        )
    return Finding("model keys", "ok", f"set: {', '.join(found)}")


def event_loop() -> Finding:
    try:
        import uvloop
    except ImportError:
        return Finding(
            "event loop", "warn", "asyncio's own: a turn costs two to three times the CPU", "pip install uvloop"
        )
    return Finding("event loop", "ok", f"uvloop {uvloop.__version__}")


def open_files() -> Finding:
    try:
        import resource
    except ImportError:
        return Finding("open files", "ok", "no limit is known on this system")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft:,}"
    if soft != resource.RLIM_INFINITY and soft < 4096:
        return Finding(
            "open files", "warn", found, "every client and every model call is a connection: ulimit -n 65536"
        )
    return Finding("open files", "ok", found)


def clock(folder: Path) -> Finding:
    """Hold the clock against the data directory's file system, and against good sense."""
    if time.time() < 1_767_225_600:  # 2026-01-01: older than this program
        return Finding(
            "clock", "fail", f"it says {time.strftime('%Y-%m-%d')}", "set the clock (timedatectl set-ntp true)"
        )
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".stanchion-doctor-") as file:
            apart_s = abs(os.fstat(file.fileno()).st_mtime - time.time())
    except OSError:
        return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S %Z"))
    if apart_s > 5:
        return Finding("clock", "warn", f"{apart_s:.0f} s apart from the file system's", "set both by NTP")
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S %Z"))


def sandbox() -> Finding:
    """Try bubblewrap: it being installed says nothing of whether it may be used."""
    name = "sandbox"
    program = shutil.which("bwrap")
    if program is None:
        return Finding(name, "warn", "no bubblewrap; only tools that run code need it", "apt install bubblewrap")
    tried = subprocess.run(
        [program, "--unshare-all", "--ro-bind", "/", "/", "true"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    if tried.returncode:
        said = " ".join(tried.stderr.split())[:120]
        return Finding(
            name,
            "warn",
            f"bubblewrap does not work here: {said}",
            "allow user namespaces; only tools that run code need it",
        )
    return Finding(name, "ok", "bubblewrap works")
