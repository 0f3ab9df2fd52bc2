"""Put a finished set where people read it: results.json, the plots, and the part of BENCHMARKS.md between the marks."""

from __future__ import annotations

from pathlib import Path

from bench.peers.peers import HERE, PEERS, ROOT, Peer
from bench.peers.plot import Bar, Line, bars, lines
from bench.peers.report import OURS, of, page
from bench.peers.results import Results

COMMITTED = HERE / "results.json"
PLOTS = HERE / "plots"
BENCHMARKS = ROOT / "BENCHMARKS.md"
BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
_INTRO = """## The same agent in its peers

One agent (a read, a write with an idempotency key, a write without one), one scripted provider over HTTP that streams 170 events
a turn, one PostgreSQL with fsync on, in Stanchion and in five frameworks, each in its own locked environment and process.
`python -m bench.peers` measures it again; `bench/peers/README.md` says how each is set up, by which page of its documentation, and
what each does well. Figures are medians, with the lowest and the highest of the repeats in brackets. The durability classes
differ: compare a figure with the last column of this table in mind."""


def publish(results: Results, root: Path = ROOT) -> None:
    """Write it all."""
    plots = root / PLOTS.relative_to(ROOT)
    plots.mkdir(parents=True, exist_ok=True)
    results.write(root / COMMITTED.relative_to(ROOT))
    drawn = draw(results)
    for name, svg in drawn.items():
        (plots / f"{name}.svg").write_text(svg)
    images = "\n\n".join(f"![{name}]({(PLOTS / name).relative_to(ROOT)}.svg)" for name in drawn)
    target = root / BENCHMARKS.relative_to(ROOT)
    target.write_text(placed(target.read_text(), f"{_INTRO}\n\n{repeats(results)}\n\n{page(results)}\n\n{images}"))


def repeats(results: Results) -> str:
    """Say how often each cell of this set was measured."""
    counts: dict[str, list[int]] = {}
    for kind, peer in {tuple(cell.split("/")[:2]) for cell in results.cells}:
        counts.setdefault(kind, []).append(sum(cell.startswith(f"{kind}/{peer}/") for cell in results.cells))
    said = ", ".join(f"{kind} {min(found)} to {max(found)}" for kind, found in sorted(counts.items()))
    return f"Repeats in this set, by framework: {said}. Where there is one, no spread is shown."


def placed(text: str, part: str) -> str:
    """Put a part between the marks; at the end where there are none."""
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{part}\n{END}{after}"


def draw(results: Results) -> dict[str, str]:
    """Draw the plots for which there are figures."""
    drawn: dict[str, str] = {}
    if of(results, "cpu"):
        drawn["cpu"] = bars(
            "CPU of a durable turn, 100 runs at once (ms)", "ms", _bars(results, "cpu", "100", "cpu_ms")
        )
        drawn["concurrency"] = lines(
            "CPU of a durable turn by runs at once",
            "runs at once",
            "ms",
            [_by_runs(results, p) for p in of(results, "cpu")],
        )
    if of(results, "bytes"):
        series = [line for peer in of(results, "bytes") if (line := _by_steps(results, peer)).points]
        drawn["bytes"] = lines("Bytes stored by one run", "steps", "KB", series)
    if of(results, "spend"):
        most = max((n for p in of(results, "spend") for cell in results.of("spend", p.name) for n in cell), key=int)
        title = f"Spent on a limit of $1.00 by {most} runs at once"
        drawn["spend"] = bars(title, "$", _bars(results, "spend", most, "spent_usd"), mark=1.0)
    if of(results, "first"):
        drawn["first-token"] = bars("Added time to the first token (ms)", "ms", _bars(results, "first", "added_ms"))
    if of(results, "memory"):
        drawn["memory"] = bars(
            "Memory of a run of 100 (KB, unshared)", "KB", _bars(results, "memory", "uss_kb_per_run")
        )
    return drawn


def _bars(results: Results, part: str, *path: str) -> list[Bar]:
    found = [(peer, results.figure(part, peer.name, *path)) for peer in of(results, part)]
    return [Bar(peer.title, f.median, f.low, f.high, peer.name == OURS) for peer, f in found if f is not None]


def _by_runs(results: Results, peer: Peer) -> Line:
    found = [(float(n), results.figure("cpu", peer.name, n, "cpu_ms")) for n in ("1", "10", "100")]
    found.append((1_000.0, results.figure("crowd", peer.name, "cpu_ms")))
    return Line(peer.title, [(n, f.median) for n, f in found if f is not None], PEERS.index(peer))


def _by_steps(results: Results, peer: Peer) -> Line:
    steps = sorted({int(step) for cell in results.of("bytes", peer.name) for step in cell if step.isdigit()})
    points: list[tuple[float, float]] = []
    for step in steps:
        found = results.figure("bytes", peer.name, str(step), "bytes")
        given_up = [
            f["calls"] for cell in results.of("bytes", peer.name) if "gave_up" in (f := cell.get(str(step), {}))
        ]
        if found is not None:
            points.append((float(given_up[0] if given_up else step), found.median / 1e3))
    return Line(peer.title, points, PEERS.index(peer))
