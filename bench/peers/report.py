"""The tables of the comparison, as Markdown, and the sentences that say where a peer is better. All of it from the cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from bench.peers.peers import BY_NAME, PEERS, Peer
from bench.peers.plot import number
from bench.peers.results import Results, Spread

OURS = "stanchion"
NOTHING = "-"


class Measure(NamedTuple):
    """A figure of which less is better (or more), and where it is in a cell."""

    what: str
    unit: str
    part: str
    path: tuple[str, ...]
    more_is_better: bool = False


def of(results: Results, part: str) -> list[Peer]:
    """List the frameworks that a comparison has cells of."""
    return [peer for peer in PEERS if any(key.startswith(f"{part}/{peer.name}/") for key in results.cells)]


def cell(found: Spread | None, scale: float = 1.0) -> str:
    """Write a figure: its median, and the ends of its repeats where there are several."""
    if found is None:
        return NOTHING
    median, low, high = (number(value * scale) for value in found[:3])
    return median if found.repeats == 1 else f"{median} ({low} to {high})"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(results: Results) -> str:
    """Write all of it."""
    parts = [_versions(results)]
    for title, part, make in _TABLES:
        if of(results, part):
            parts.append(f"### {title}\n\n{make(results)}")
    parts.append("### Where a peer is better\n\n" + "\n".join(better(results)))
    if errors := results.errors():
        said = "\n".join(f"- `{key}`: {' '.join(error.split())[:300]}" for key, error in sorted(errors.items()))
        parts.append(f"### What could not be measured\n\n{said}")
    about = ", ".join(f"{key} {value}" for key, value in results.machine.items())
    short = " Short form: rough figures." if results.short else ""
    parts.append(f"Measured on: {about}.{short}")
    return "\n\n".join(parts)


def _versions(results: Results) -> str:
    rows = [
        (
            peer.title,
            ", ".join(f"{name} {found}" for name, found in results.versions[peer.name].items()),
            peer.durability,
        )
        for peer in PEERS
        if peer.name in results.versions
    ]
    return table(("Framework", "Versions", "What is durable, and when"), rows)


# --- the tables -------------------------------------------------------------------------------------------------------

AT_ONCE = ("1", "10", "100")


def _cpu(results: Results) -> str:
    """CPU, turns by core, and the database's CPU."""
    peers = of(results, "cpu")
    many, live = _at_once(results, "crowd"), _at_once(results, "memory")
    heads = (
        "Framework",
        *(f"{n} at once" for n in AT_ONCE),
        f"{many} at once",
        f"{live} at once, an event every 20 ms",
    )

    def rows(name: str) -> list[list[str]]:
        return [
            [
                peer.title,
                *(cell(results.figure("cpu", peer.name, n, name)) for n in AT_ONCE),
                cell(results.figure("crowd", peer.name, name)),
                cell(results.figure("memory", peer.name, name)),
            ]
            for peer in peers
        ]

    return "\n\n".join(
        (
            "CPU of the agent's process by turn, ms:",
            table(heads, rows("cpu_ms")),
            "Turns a second and core (of the agent's process):",
            table(heads, rows("turns_per_s_core")),
            "CPU of PostgreSQL by turn, ms:",
            table(heads, rows("database_cpu_ms")),
        )
    )


def _at_once(results: Results, part: str) -> str:
    """Say how many runs a comparison had at once: fewer in the short form."""
    found = [results.figure(part, peer.name, "runs") for peer in of(results, part)]
    return number(max((f.high for f in found if f is not None), default=0.0))


def _bytes(results: Results) -> str:
    steps = sorted(
        {
            int(step)
            for peer in of(results, "bytes")
            for found in results.of("bytes", peer.name)
            for step in found
            if step.isdigit()
        }
    )
    rows: list[list[str]] = []
    for peer in of(results, "bytes"):
        row = [
            peer.title,
            cell(results.figure("bytes", peer.name, str(steps[0]), "empty"), 1e-3),
            cell(results.figure("bytes", peer.name, "many", "bytes_per_run"), 1e-3),
        ]
        for step in steps:
            found = results.figure("bytes", peer.name, str(step), "bytes")
            gave_up = [f for cells in results.of("bytes", peer.name) if (f := cells.get(str(step), {})).get("gave_up")]
            said = f" after {gave_up[0]['calls']:,} steps; given up" if gave_up else ""
            row.append(cell(found, 1e-3) + said)
        rows.append([*row, *_growth(results, peer, steps)])
    heads = (
        "Framework",
        "empty tables, KB",
        "10 steps, one run of many, KB",
        *(f"{step:,} steps, KB" for step in steps),
    )
    more = (f"a step, first {steps[1]:,}", f"a step, last {steps[-1] - steps[-2]:,}") if len(steps) > 2 else ()
    return table((*heads, *more), rows)


def _growth(results: Results, peer: Peer, steps: Sequence[int]) -> list[str]:
    """Bytes that a step adds early in a run, and late."""
    if len(steps) < 3:
        return []
    sizes = [results.figure("bytes", peer.name, str(step), "bytes") for step in steps]
    whole = not any("gave_up" in found.get(str(steps[-1]), {}) for found in results.of("bytes", peer.name))
    found: list[str] = []
    for (a, b), (x, y) in zip(((steps[0], steps[1]), (steps[-2], steps[-1])), ((0, 1), (-2, -1)), strict=True):
        before, after = sizes[x], sizes[y]
        if before is None or after is None or (b == steps[-1] and not whole):
            found.append(NOTHING)
        else:
            found.append(f"{number((after.median - before.median) / (b - a) / 1e3)} KB")
    return found


def _kill(results: Results) -> str:
    heads = (
        "Framework", "kills in a call", "write without a key: done twice", "its runs", "write with a key: done twice",
        "its runs", "model calls made again", "goes on after a restart", "seconds from the kill",
        "another worker takes over, s",
    )  # fmt: skip
    rows: list[list[str]] = []
    for peer in of(results, "kill"):

        def total(*path: str, peer: Peer = peer) -> int:
            return results.total("kill", peer.name, *path)

        itself, runs, by_hand = total("by_itself"), total("runs"), total("by_hand")
        how = "by itself" if itself == runs else "by hand only" if by_hand == runs else f"{itself} of {runs} by itself"
        took = results.figure("kill", peer.name, "seconds")
        rows.append(
            [
                peer.title, str(runs), f"{total('note', 'repeated')} of {total('note', 'runs')}", _states(total, "note"),
                f"{total('refund', 'repeated')} of {total('refund', 'runs')}", _states(total, "refund"),
                str(total("calls_again")), how, cell(took), _other(results, peer),
            ]
        )  # fmt: skip
    return table(heads, rows)


def _states(total: Callable[..., int], kind: str) -> str:
    names = {"done": "done", "waiting": "wait for a person", "failed": "failed", "open": "not done"}
    return ", ".join(f"{total(kind, state)} {said}" for state, said in names.items() if total(kind, state))


def _other(results: Results, peer: Peer) -> str:
    if not any(results.of("kill-other", peer.name)):
        return "nothing could"
    if not results.total("kill-other", peer.name, "by_itself"):
        return "no"
    return cell(results.figure("kill-other", peer.name, "seconds"))


def _spend(results: Results) -> str:
    peers = of(results, "spend")
    runs = sorted({int(n) for peer in peers for found in results.of("spend", peer.name) for n in found})
    rows: list[list[str]] = []
    for peer in peers:
        row = [peer.title, _LIMITS[peer.limit]]
        for n in runs:
            spent = results.figure("spend", peer.name, str(n), "spent_usd")
            row.append(NOTHING if spent is None else _dollars(spent))
        rows.append(row)
    return table(("Framework", "Its own limit", *(f"{n} runs at once" for n in runs)), rows)


def _dollars(spent: Spread) -> str:
    text = f"${spent.median:.3f}" + (f" (to {spent.high:.3f})" if spent.high > spent.median + 5e-4 else "")
    return f"**{text}**" if spent.high > 1 else text


_LIMITS = {
    "dollars": "dollars, of all runs together",
    "dollars a run": "dollars a run; given an equal share of $1",
    "calls a run": "model calls a run; given as many as cost a share of $1",
    "tool calls a run": "tool calls a run; given as many",
}


def _first(results: Results) -> str:
    rows = [
        [peer.title, *(cell(results.figure("first", peer.name, name)) for name in ("bare_ms", "first_ms", "added_ms"))]
        for peer in of(results, "first")
    ]
    return table(("Framework", "bare client, ms", "first token, ms", "added, ms"), rows)


def _memory(results: Results) -> str:
    rows = [
        [
            peer.title,
            cell(results.figure("memory", peer.name, "rss_before"), 1e-6),
            cell(results.figure("memory", peer.name, "uss_kb_per_run")),
            cell(results.figure("memory", peer.name, "rss_kb_per_run")),
            cell(results.figure("crowd", peer.name, "uss_kb_per_run")),
        ]
        for peer in of(results, "memory")
    ]
    live, many = _at_once(results, "memory"), _at_once(results, "crowd")
    heads = (
        "Framework", "process before, MB (RSS)", f"a run of {live}, KB (USS)", f"a run of {live}, KB (RSS)",
        f"a run of {many}, KB (USS)",
    )  # fmt: skip
    return table(heads, rows)


def _streams(results: Results) -> str:
    rows: list[list[str]] = []
    for peer in of(results, "streams"):

        def total(name: str, peer: Peer = peer) -> str:
            return f"{results.total('streams', peer.name, name):,}"

        cells = list(results.of("streams", peer.name))
        if not cells:
            continue
        numbered: bool = cells[0]["numbered"]
        events = (total("missed"), total("repeated")) if numbered else ("no numbers", "no numbers")
        ended = f"{total('ended')} of {total('runs')}"
        words = (f"{total('words_missing')} of {total('words')}", total("words_again"))
        rows.append([peer.title, cells[0]["how"], total("disconnects"), ended, *events, *words])
    heads = (
        "Framework", "reads on by", "disconnects", "streams that ended", "events missed", "events twice", "words missing",
        "words twice",
    )  # fmt: skip
    return table(heads, rows)


_TABLES: tuple[tuple[str, str, Callable[[Results], str]], ...] = (
    ("1. CPU of a durable turn", "cpu", _cpu),
    ("2. Bytes stored by one run", "bytes", _bytes),
    ("3. SIGKILL inside a tool call, after its effect has landed", "kill", _kill),
    ("4. Spend against a limit of $1.00", "spend", _spend),
    ("5. Added time to the first token", "first", _first),
    ("6. Memory of a live run", "memory", _memory),
    ("7. Streams cut off at random", "streams", _streams),
)

# --- where a peer is better ---------------------------------------------------------------------------------------------

MEASURES = (
    *(Measure(f"CPU of a turn, {n} at once", "ms", "cpu", (n, "cpu_ms")) for n in AT_ONCE),
    Measure("CPU of a turn, 1,000 at once", "ms", "crowd", ("cpu_ms",)),
    Measure("CPU of a turn, 100 at once with an event every 20 ms", "ms", "memory", ("cpu_ms",)),
    *(Measure(f"the database's CPU of a turn, {n} at once", "ms", "cpu", (n, "database_cpu_ms")) for n in AT_ONCE),
    Measure("the database's CPU of a turn, 1,000 at once", "ms", "crowd", ("database_cpu_ms",)),
    Measure("empty tables", "KB", "bytes", ("10", "empty")),
    Measure("bytes stored at 10 steps by one run of many", "KB", "bytes", ("many", "bytes_per_run")),
    *(Measure(f"bytes stored at {n:,} steps", "KB", "bytes", (str(n), "bytes")) for n in (10, 50, 100, 1_000)),
    Measure("added time to the first token", "ms", "first", ("added_ms",)),
    Measure("the process before any run", "MB", "memory", ("rss_before",)),
    Measure("memory of a run of 100", "KB", "memory", ("uss_kb_per_run",)),
    Measure("memory of a run of 1,000", "KB", "crowd", ("uss_kb_per_run",)),
)
_SCALE = {"KB": 1e-3, "MB": 1e-6}


def better(results: Results) -> list[str]:
    """Say of every figure which peers have the better median; and what counts cannot show."""
    said = [line for measure in MEASURES if (line := _beaten(results, measure))]
    said += _spent_more(results)
    said += _went_on(results)
    return said or ["- Nothing in this set: in every figure above the median of Stanchion is the best."]


def _beaten(results: Results, measure: Measure) -> str:
    ours = results.figure(measure.part, OURS, *measure.path)
    if ours is None:
        return ""
    scale = 1.0 if measure.path[-1].endswith("kb_per_run") else _SCALE.get(measure.unit, 1.0)
    found: list[tuple[float, str]] = []
    for peer in PEERS:
        theirs = results.figure(measure.part, peer.name, *measure.path)
        given_up = any(cells.get(measure.path[0], {}).get("gave_up") for cells in results.of("bytes", peer.name))
        if theirs is None or (measure.part == "bytes" and given_up) or peer.name == OURS:
            continue
        if theirs.median < ours.median:
            sure = "" if theirs.high < ours.low or ours.repeats == 1 else ", the repeats overlap"
            found.append((theirs.median, f"{peer.title} {number(theirs.median * scale)}{sure}"))
    if not found:
        return ""
    names = "; ".join(text for _, text in sorted(found))
    return f"- **{measure.what}** ({measure.unit}; Stanchion {number(ours.median * scale)}): {names}."


def _spent_more(results: Results) -> list[str]:
    """Say who used more of the dollar without passing it."""
    said: list[str] = []
    for n in ("5", "20", "50", "200"):
        ours = results.figure("spend", OURS, n, "spent_usd")
        found = [
            f"{peer.title} ${theirs.median:.3f}"
            for peer in PEERS
            if ours and (theirs := results.figure("spend", peer.name, n, "spent_usd")) and ours.median + 1e-3 < theirs.median
            and theirs.high <= 1
        ]  # fmt: skip
        if ours and found:
            said.append(f"- **Use of the dollar at {n} runs** (Stanchion ${ours.median:.3f}): {'; '.join(found)}.")
    return said


def _went_on(results: Results) -> list[str]:
    """Say whose killed runs came to an end where ours wait for a person, and who was sooner."""
    waiting = results.total("kill", OURS, "note", "waiting")
    done = [
        f"{BY_NAME[peer.name].title} ({results.total('kill', peer.name, 'note', 'repeated')} of "
        f"{results.total('kill', peer.name, 'note', 'runs')} written twice)"
        for peer in of(results, "kill")
        if peer.name != OURS and results.total("kill", peer.name, "note", "done")
    ]
    said: list[str] = []
    if waiting and done:
        said.append(
            f"- **Runs killed in a write without a key** come to an end without a person: {'; '.join(done)}. "
            f"{waiting} of Stanchion's wait for a person, since nobody knows whether the write was done."
        )
    for part, what in (("kill", "a restart"), ("kill-other", "another worker")):
        if line := _beaten(
            results, Measure(f"seconds from the kill to the end of all runs, by {what}", "s", part, ("seconds",))
        ):
            said.append(line)
    return said
