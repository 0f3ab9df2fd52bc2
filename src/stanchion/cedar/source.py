"""A set of policies as text: files of Cedar, their digest, and where each policy begins.

The digest names the set: it stands in the journal, and the text is kept under it, so that a call can be explained later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from stanchion.core.errors import ConfigError

SUFFIX = ".cedar"
MAX_BYTES = 1_000_000
"""Of all files of a set."""


class PolicyFile(msgspec.Struct, frozen=True):
    """A file of policies, by its name without folders."""

    name: str
    text: str


class PolicyText(msgspec.Struct, frozen=True):
    """A set of policies, in the order of its files' names."""

    files: tuple[PolicyFile, ...]

    @property
    def digest(self) -> str:
        """Name the set: 128 bits of SHA-256, as hex."""
        return hashlib.sha256(self.encode()).hexdigest()[:32]

    def encode(self) -> bytes:
        """Give the set as it is stored."""
        return msgspec.json.encode(self)


def decode(body: bytes) -> PolicyText:
    """Read a set as it was stored. Raises `ConfigError`."""
    try:
        return msgspec.json.decode(body, type=PolicyText)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"the stored policies cannot be read: {error}") from error


def read_files(places: Iterable[str | Path]) -> PolicyText:
    """Read files, and all *.cedar files of folders. Raises `ConfigError`: missing, empty, too long, no UTF-8, a name twice."""
    files: dict[str, PolicyFile] = {}
    size = 0
    for path in paths_of(places):
        if path.name in files:
            raise ConfigError(f"policies: two files are named {path.name!r}; give each its own name")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ConfigError(f"policies: {str(path)!r} is not text in UTF-8") from None
        except OSError as error:
            raise ConfigError(f"policies: cannot read {str(path)!r}: {error.strerror}") from None
        size += len(text)
        if size > MAX_BYTES:
            raise ConfigError(f"policies: the files are longer than {MAX_BYTES:,} bytes; is {str(path)!r} one of them?")
        files[path.name] = PolicyFile(path.name, text)
    if not files:
        raise ConfigError("policies: no file is named; name a file or a folder with *.cedar files")
    return PolicyText(tuple(files[name] for name in sorted(files)))


def paths_of(places: Iterable[str | Path]) -> list[Path]:
    """List the files that are meant. Raises `ConfigError`: one is missing, or a folder has none."""
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            inside = sorted(path for path in place.iterdir() if path.suffix == SUFFIX and path.is_file())
            if not inside:
                raise ConfigError(
                    f"policies: the folder {str(place)!r} has no *{SUFFIX} file; put one there, or name a file"
                )
            found += inside
        elif place.exists():
            found.append(place)
        else:
            raise ConfigError(f"policies: there is no file or folder {str(place)!r}")
    return found


def split(text: str) -> Iterator[tuple[int, str]]:
    """Cut a file into its policies, each with the line on which it begins. What follows the last ";" is given too."""
    start, place, line = 0, 0, 1
    while place < len(text):
        character = text[place]
        if text.startswith("//", place):
            end = text.find("\n", place)
            place = len(text) if end < 0 else end
        elif character == '"':
            place = _after_string(text, place)
        else:
            place += 1
            if character == ";":
                yield _trimmed(text[start:place], line)
                line += text.count("\n", start, place)
                start = place
    if _code(text[start:]).strip():
        yield _trimmed(text[start:], line)


def _after_string(text: str, place: int) -> int:
    place += 1
    while place < len(text) and text[place] != '"':
        place += 2 if text[place] == "\\" else 1
    return place + 1


def _trimmed(text: str, line: int) -> tuple[int, str]:
    """Leave out the blank lines and comments in front, and count them."""
    lines = text.split("\n")
    while len(lines) > 1 and (not lines[0].strip() or lines[0].strip().startswith("//")):
        lines.pop(0)
        line += 1
    return line, "\n".join(lines)


def _code(text: str) -> str:
    return "\n".join(line.partition("//")[0] for line in text.split("\n"))
