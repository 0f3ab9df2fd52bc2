"""What in an agent's file keeps the provider from reading the beginning of its requests from its cache.

Identity, tools and output schema stand before every conversation. If one byte of them differs between two requests, all that
follows is paid in full again. Found in the text of the file, which is not run: clocks, chance, ids and the machine in what becomes a prompt;
orders that differ from process to process; what belongs to one user in what all share; more tools than should stand in a prompt. What only
shows when the file runs, `tried` finds: it loads the agents in two processes with other hash seeds, compares what they would send byte by
byte, and counts their tools.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from stanchion.core.errors import ConfigError

_CHANGING = {
    "datetime": "the time", "date": "the time", "now": "the time", "today": "the time", "utcnow": "the time", "time": "the time",
    "time_ns": "the time", "monotonic": "the time", "perf_counter": "the time", "strftime": "the time", "ctime": "the time",
    "random": "chance", "randint": "chance", "choice": "chance", "shuffle": "chance", "sample": "chance", "uniform": "chance",
    "token_hex": "chance", "token_urlsafe": "chance", "urandom": "chance",
    "uuid1": "a new id", "uuid4": "a new id", "uuid7": "a new id", "id": "an address in memory", "hash": "a hash with a seed",
    "getpid": "the process", "gethostname": "the machine", "node": "the machine", "getcwd": "the machine",
}  # fmt: skip
_BARE = frozenset({"id", "hash"})
"""Names that mean this only as plain functions: `obj.id()` may be anything."""
_MODULES = frozenset({"datetime", "date", "time", "random", "secrets", "uuid", "os", "socket", "platform", "dt"})
_UNORDERED = frozenset(
    {"set", "frozenset", "listdir", "scandir", "iterdir", "glob", "rglob", "vars", "globals", "locals"}
)
_PERSONAL = ("user", "customer", "tenant", "session", "account", "person")
_PROMPT = frozenset({"identity", "description"})
MANY = 40
"""So many tools may stand in a prompt. Models choose worse among more (Anthropic, "Tool search tool": above 30 to 50), and all are paid for in
each request."""
LONG = 60
"""A run of more turns pays most for reading again what it began with."""
_FIX = {
    "changes": "say it in the input, or let a tool tell it",
    "order": "sort it",
    "personal": "say it in the input: what all sessions share stands first",
    "tools": "show those that most tasks need, and let the others be found: search=ToolSearch(shown=(..))",
    "long": "let the beginning be left out where that pays: compaction=Compaction(..) (stanchion.compaction)",
    "differs": "make it the same",
}


class Finding(msgspec.Struct, frozen=True):
    """A place that keeps a request from beginning as the last one did."""

    line: int
    column: int
    rule: str
    """"changes", "order", "personal", "tools" or "long"; "differs" of a file that was loaded."""
    text: str
    fix: str


def lint(source: str, name: str = "agent.py") -> list[Finding]:
    """Look through an agent's file. Raises `ConfigError` where it is no Python."""
    try:
        tree = ast.parse(source, name)
    except SyntaxError as error:
        raise ConfigError(f"{name}:{error.lineno}: this is no Python: {error.msg}") from error
    looked = _Look(tree)
    found = [finding for node in ast.walk(tree) for finding in looked.at(node)]
    return sorted(set(found), key=lambda finding: (finding.line, finding.column, finding.rule))


class _Look:
    def __init__(self, tree: ast.Module) -> None:
        self._values: dict[str, list[ast.expr]] = {}
        """What is assigned to a name, anywhere in the file."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self._values.setdefault(target.id, []).append(node.value)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                self._values.setdefault(node.target.id, []).append(node.value)

    def at(self, node: ast.AST) -> Iterator[Finding]:
        if not isinstance(node, ast.Call) or _name(node.func) not in ("Agent", "tool", "replace"):
            return
        for keyword in node.keywords:
            if keyword.arg in _PROMPT:
                yield from self._prompt(keyword.value)
            elif keyword.arg == "tools":
                yield from self._order(keyword.value)
                yield from self._many(node, keyword.value)
            elif keyword.arg == "limits":
                yield from self._long(node, keyword.value)

    def _many(self, agent: ast.Call, value: ast.expr) -> Iterator[Finding]:
        """Count tools where they are written out."""
        listed = self._values.get(value.id, [value]) if isinstance(value, ast.Name) else [value]
        count = max((len(one.elts) for one in listed if isinstance(one, ast.List | ast.Tuple)), default=0)
        if count > MANY and not any(keyword.arg == "search" for keyword in agent.keywords):
            text = f"{count} tools stand in every prompt (--run says how many tokens they are)"
            yield _finding(value, "tools", text)

    def _long(self, agent: ast.Call, value: ast.expr) -> Iterator[Finding]:
        """Look whether runs may be long, and are read in whole at each turn."""
        if any(keyword.arg == "compaction" for keyword in agent.keywords):
            return
        for one in self._values.get(value.id, [value]) if isinstance(value, ast.Name) else [value]:
            said = (
                [keyword.value for keyword in one.keywords if keyword.arg == "turns"]
                if isinstance(one, ast.Call)
                else []
            )
            turns = said[0].value if said and isinstance(said[0], ast.Constant) else 0
            if isinstance(turns, int) and turns > LONG:
                yield _finding(value, "long", f"a run may have {turns} turns, and each reads again all before it")

    def _prompt(self, value: ast.expr) -> Iterator[Finding]:
        for node in self._reached(value):
            if isinstance(node, ast.Call) and (what := _changes(node)):
                yield _finding(node, "changes", f"{ast.unparse(node)} puts {what} into the prompt")
            elif isinstance(node, ast.Name) and any(word in node.id.lower() for word in _PERSONAL):
                if node.id not in self._values:  # a parameter: another value for each
                    yield _finding(
                        node, "personal", f"{node.id} differs between users, and stands before what all share"
                    )
        yield from self._order(value)

    def _order(self, value: ast.expr) -> Iterator[Finding]:
        sorted_inside = {
            id(inner)
            for node in self._reached(value)
            if isinstance(node, ast.Call) and _name(node.func) == "sorted"
            for inner in ast.walk(node)
        }
        for node in self._reached(value):
            unordered = isinstance(node, ast.Set | ast.SetComp) or (
                isinstance(node, ast.Call) and _name(node.func) in _UNORDERED
            )
            if isinstance(node, ast.expr) and unordered and id(node) not in sorted_inside:
                yield _finding(node, "order", f"{ast.unparse(node)} has no order that lasts")

    def _reached(self, value: ast.expr) -> Iterator[ast.AST]:
        """Walk an expression, and what the names in it were given."""
        waiting, seen = [value], set[str]()
        while waiting:
            for node in ast.walk(waiting.pop()):
                yield node
                if isinstance(node, ast.Name) and node.id not in seen:
                    seen.add(node.id)
                    waiting += self._values.get(node.id, [])


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _changes(call: ast.Call) -> str:
    name = _name(call.func)
    what = _CHANGING.get(name, "")
    if not what or not isinstance(call.func, ast.Attribute):
        return what
    owner = _name(call.func.value)
    return what if owner in _MODULES and name not in _BARE else ""


def _finding(node: ast.expr, rule: str, text: str) -> Finding:
    return Finding(node.lineno, node.col_offset + 1, rule, text, _FIX[rule])


_SHOW = """
import sys
from stanchion.runtime.authoring.linting import shown
sys.stdout.write(shown(sys.argv[1]))
"""


def shown(file: str) -> str:
    """Write what stands before the conversation in every request of a file's agents, as JSON lines."""
    from stanchion.context.assemble import preamble
    from stanchion.core.prices import load_prices
    from stanchion.runtime.opening.files import load_agents

    lines: list[str] = []
    for agent in load_agents(file):
        bundle = agent.bundle(agent.registry(), load_prices(), "2026-01-01")
        before = preamble(bundle, mark=bundle.guard.mark)
        for what, value in (
            ("identity", before.system),
            *((f"tool {t.name}", t) for t in before.tools),
            ("output", bundle.output),
        ):
            lines.append(f"{agent.name}: {what}: {msgspec.json.encode(value).decode()}")
    return "\n".join(lines)


def tried(file: str, timeout_s: float = 60.0) -> list[Finding]:
    """Load a file's agents in two processes, and say what of them costs more than it need. Raises `ConfigError`.

    Where what they send first differs, and which show many tools; lines are 0.
    """
    one, other = (_shown_elsewhere(file, seed, timeout_s) for seed in ("1", "2"))
    found = [Finding(0, 0, "tools", text, _FIX["tools"]) for text in _crowded(one)]
    if where := _differs(one, other):
        found.append(Finding(0, 0, "differs", f"two loads send different bytes: {where}", _FIX["differs"]))
    return found


def _differs(one: list[str], other: list[str]) -> str:
    for left, right in zip(one, other, strict=False):
        if left != right:
            at = next(
                (n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
            )
            return f"{left[: left.find(':', left.find(':') + 1)]}: {left[max(at - 30, 0) : at + 30]!r} here, {right[max(at - 30, 0) : at + 30]!r} there"
    return "" if len(one) == len(other) else "the agents are not the same ones in both"


def _crowded(lines: list[str]) -> Iterator[str]:
    """Say which agents show many tools, with their tokens at four bytes a token."""
    tools: dict[str, list[int]] = {}
    for line in lines:
        agent, what, text = line.split(": ", 2)
        if what.startswith("tool "):
            tools.setdefault(agent, []).append(len(text.encode()))
    for agent, sizes in tools.items():
        if len(sizes) > MANY:
            yield f"{agent}: {len(sizes)} tools stand in every prompt, about {sum(sizes) // 4:,} tokens"


def _shown_elsewhere(file: str, seed: str, timeout_s: float) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", _SHOW, str(Path(file))]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{file}: it did not load within {timeout_s:g} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise ConfigError(f"{file}: it cannot be loaded: {said[-1]}")
    return done.stdout.splitlines()
