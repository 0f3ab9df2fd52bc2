"""Run the code in the documentation: every fenced block of README.md and docs/**/*.md that can be run (`make check`).

    ```python            run as a program of its own
    ```bash, ```sh       run as a script (bash -euo pipefail)
    ```console           every line that begins with "$ " is run; the lines below it are its expected output, if there are any
    ```json, ```toml     parsed
    anything else        left alone

The blocks of a page share a directory of their own, in which `examples` is the repository's. A line `...` in an expected
output stands for any lines. A console command ending in " &" goes on running until the page is done; what follows waits for
its first line of output. No model key is in the environment. A comment right above a block says more of it:

    <!-- skip: reason -->      do not run it; the reason is printed
    <!-- file: name.py -->     also write it to this file first (a python block is run from there)
    <!-- continues -->         run it after the python blocks above it that it continues
    <!-- output -->            it is the expected output of the block above it
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK_TIMEOUT_S = 120
READY_TIMEOUT_S = 60
RUNNABLE = {"python", "bash", "sh", "console", "json", "toml"}
SECRETS = re.compile(r"_(API_KEY|TOKEN|SECRET|PASSWORD)$|_BASE_URL$")

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w+-]*)[^\n`]*\n(?P<body>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL
)
COMMENTS = re.compile(r"(?:<!--[^>]*-->\s*)+\Z")
DIRECTIVE = re.compile(r"<!--\s*(skip|file|continues|output)\s*(?::\s*([^>]*?))?\s*-->")


class BlockError(Exception):
    """A block that failed, or that cannot be understood."""


@dataclass
class Block:
    """A fenced block and what the comments above it say."""

    page: Path
    line: int
    language: str
    text: str
    said: dict[str, str]

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page}:{self.line}"


@dataclass
class Session:
    """The directory and the running commands of a page."""

    directory: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list[subprocess.Popen[str]])
    program: str = ""
    printed: str = ""

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not SECRETS.search(name)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
        return kept | {
            "PATH": path,
            "HOME": str(self.directory),
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }

    def run(self, command: list[str]) -> str:
        """Run a command to its end and return what it printed. Raises `BlockError`."""
        try:
            done = subprocess.run(
                command, cwd=self.directory, env=self.environment(), capture_output=True, text=True,
                timeout=BLOCK_TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            raise BlockError(f"not done within {BLOCK_TIMEOUT_S} s") from late
        if done.returncode:
            raise BlockError(f"exit code {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
        return done.stdout

    def start(self, command: str) -> None:
        """Start a command that goes on, and wait until it says something. Raises `BlockError`."""
        log = self.directory / f".running-{len(self.running)}"
        with log.open("w") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.directory, env=self.environment(), text=True,
                stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.running.append(process)
        until = time.monotonic() + READY_TIMEOUT_S
        while not log.read_text().strip():
            if process.poll() is not None or time.monotonic() > until:
                raise BlockError(f"{command!r} said nothing (exit code {process.poll()})")
            time.sleep(0.05)

    def stop(self) -> None:
        """End what is still running, politely first."""
        for process in self.running:
            for signal_number in (signal.SIGTERM, signal.SIGKILL):
                if process.poll() is None:
                    os.killpg(process.pid, signal_number)
                    try:
                        process.wait(timeout=15)
                    except subprocess.TimeoutExpired:
                        continue


def blocks_of(page: Path) -> Iterator[Block]:
    """Find the fenced blocks of a page."""
    text = page.read_text()
    for fence in FENCE.finditer(text):
        above = COMMENTS.search(text[: fence.start()])
        said: dict[str, str] = dict(DIRECTIVE.findall(above[0])) if above else {}
        body = re.sub(f"^{fence['indent']}", "", fence["body"], flags=re.MULTILINE)
        yield Block(page, text.count("\n", 0, fence.start()) + 1, fence["language"], body, said)


def run_block(session: Session, block: Block) -> None:
    """Run a block for what it is. Raises `BlockError`."""
    if "file" in block.said:
        target = session.directory / block.said["file"]
        if not target.resolve().is_relative_to(session.directory.resolve()):
            raise BlockError(f"{block.said['file']!r} is outside of the page's directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.text)
    match block.language:
        case _ if "output" in block.said:
            compare(block.text, session.printed)
        case "python":
            run_python(session, block)
        case "bash" | "sh":
            session.printed = session.run(["bash", "-euo", "pipefail", "-c", block.text])
        case "console":
            run_console(session, block.text)
        case "json":
            parse(json.loads, block.text)
        case "toml":
            parse(tomllib.loads, block.text)
        case _:
            pass


def run_python(session: Session, block: Block) -> None:
    session.program = f"{session.program}\n{block.text}" if "continues" in block.said else block.text
    path = session.directory / block.said.get("file", ".block.py")
    path.write_text(session.program)
    session.printed = session.run([sys.executable, "-W", "error", str(path)])


def run_console(session: Session, text: str) -> None:
    """Run the commands of a console block one by one, each held against the output below it."""
    for command, expected in commands_of(text):
        if command.endswith(" &"):
            session.start(command.removesuffix(" &"))
            continue
        session.printed = session.run(["bash", "-euo", "pipefail", "-c", command])
        if expected.strip():
            compare(expected, session.printed)


def commands_of(text: str) -> Iterator[tuple[str, str]]:
    """Split a console block into commands (continued by a backslash) and expected outputs."""
    for piece in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = piece.splitlines()
        length = 1
        while lines[length - 1].endswith("\\") and length < len(lines):
            length += 1
        yield "\n".join(lines[:length]).strip(), "\n".join(lines[length:])


def compare(expected: str, printed: str) -> None:
    """Hold an output against what is expected; `...` stands for any lines. Raises `BlockError`."""
    lines = (
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line.rstrip()) + r"\n"
        for line in expected.strip().splitlines()
    )
    actual = "".join(f"{line.rstrip()}\n" for line in printed.strip().splitlines())
    if not re.fullmatch("".join(lines), actual):
        raise BlockError(f"expected output:\n{expected.strip()}\nprinted:\n{printed.strip()}")


def parse(loads: Callable[[str], object], text: str) -> None:
    try:
        loads(text)
    except ValueError as wrong:
        raise BlockError(str(wrong)) from wrong


def check_page(page: Path) -> tuple[int, list[str]]:
    """Run the blocks of a page in order; return how many ran, and the failures."""
    ran, failures = 0, list[str]()
    with tempfile.TemporaryDirectory(prefix="stanchion-docs-") as made:
        session = Session(Path(made))
        (session.directory / "examples").symlink_to(ROOT / "examples")
        try:
            for block in blocks_of(page):
                if "skip" in block.said:
                    if not block.said["skip"]:
                        failures.append(f"{block.where}: a skipped block must give its reason")
                    print(f"{block.where}: skipped: {block.said['skip']}")
                    continue
                try:
                    run_block(session, block)
                except BlockError as failure:
                    failures.append(f"{block.where} ({block.language}): {failure}")
                ran += block.language in RUNNABLE
        finally:
            session.stop()
    return ran, failures


def main(arguments: list[str]) -> int:
    """Check the pages named, or all."""
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # so that what a page has started is ended, too
    pages = [Path(name).resolve() for name in arguments] or [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    total, failures = 0, list[str]()
    for page in pages:
        ran, failed = check_page(page)
        total += ran
        failures += failed
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{total} blocks on {len(pages)} pages, {len(failures)} failed")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
