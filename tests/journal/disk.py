"""A disk that fails: a VFS of SQLite that loses what was not synced, is full, or cannot sync.

It passes everything on to the real file and keeps beside it what would be on the platter if the power went now: the
bytes at the last sync, and the writes since, of which any may have reached it, in part and in any order.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512


class _Platter:
    """What is known to be on the disk of one file, and what may be."""

    def __init__(self) -> None:
        self.durable = bytearray()
        self.pending: list[tuple[int, bytes | None]] = []

    def sync(self) -> None:
        for change in self.pending:
            _apply(self.durable, change)
        self.pending.clear()

    def after_a_crash(self, chance: random.Random, survival: float | None) -> bytes:
        """Apply some of the pending writes: whole, torn at a sector, or not at all."""
        image = bytearray(self.durable)
        survival = chance.choice((0.0, 0.5, 0.9, 1.0)) if survival is None else survival
        for offset, data in self.pending:
            if chance.random() >= survival:
                continue
            if data is not None and chance.random() < 0.2:
                data = data[: SECTOR * chance.randint(0, len(data) // SECTOR)]
            _apply(image, (offset, data))
        return bytes(image)


def _apply(image: bytearray, change: tuple[int, bytes | None]) -> None:
    offset, data = change
    if data is None:
        del image[offset:]
        return
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data


class Disk(apsw.VFS):
    """The disk. `crash` gives the files as they would be found after a loss of power."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "unix")
        self.name = name
        self.platters: dict[str, _Platter] = {}
        self.room: int | None = None
        """Bytes that may still be written; None: any number."""
        self.sync_fails = False
        self.sync_lies = False
        """It says that it has synced, and has not."""
        self.syncs = 0
        self.watch: Callable[[str], None] = lambda _: None
        """Called at every write and sync."""

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  (SQLite's name)
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self.platters.pop(filename, None)

    def crash(self, folder: Path, chance: random.Random, survival: float | None = None) -> Path:
        """Write what the disk would hold into a folder; return the database's path.

        `survival`: the share of the writes since the last sync that had reached the disk; None: any.
        """
        folder.mkdir()
        for path, platter in self.platters.items():
            (folder / Path(path).name).write_bytes(platter.after_a_crash(chance, survival))
        return folder / "journal.db"


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._platter = disk.platters.setdefault(path, _Platter())

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        disk = self._disk
        disk.watch("write")
        if disk.room is not None:
            disk.room -= len(data)
            if disk.room < 0:
                raise apsw.FullError("database or disk is full")
        super().xWrite(data, offset)
        self._platter.pending.append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._platter.pending.append((newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        disk = self._disk
        disk.watch("sync")
        if disk.sync_fails:
            raise apsw.IOError("the disk cannot sync")
        super().xSync(flags)
        disk.syncs += 1
        if not disk.sync_lies:
            self._platter.sync()
        disk.watch("synced")
