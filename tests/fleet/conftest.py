"""Many processes of the command line on one store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Served, sim_url, write_files
from tests.journal.conftest import dsn, fresh_dsn, postgres

__all__ = ["dsn", "fresh_dsn", "postgres", "sim_url"]

Start = Callable[..., Served]


@pytest.fixture
def cli(tmp_path: Path, sim_url: str) -> Cli:
    """The command line in a fresh directory, with a key and the address of a simulated provider."""
    write_files(tmp_path)
    return Cli(tmp_path, {"ANTHROPIC_BASE_URL": sim_url, "ANTHROPIC_API_KEY": "any"})


@contextmanager
def started(cli: Cli, *arguments: str) -> Iterator[Served]:
    """Start a command that serves or works; wait for its line; end it in the end."""
    process = cli.start(*arguments, "-o", "json")
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(process.communicate()[1])
    said: dict[str, Any] = json.loads(line)
    served = Served(cli, process, said)
    try:
        yield served
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
