"""The figures as a table, each beside its target."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import apsw


class Row(NamedTuple):
    what: str
    figure: str
    target: str = ""
    met: bool | None = None


def machine() -> dict[str, Any]:
    """Say what was measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "cpu": model, "cores": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 1), "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(), "sqlite": apsw.sqlite_lib_version(),
        **{name: version(name) for name in ("stanchion", "aiohttp", "uvloop", "msgspec", "uvicorn", "fastapi")},
    }  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """Make a Markdown table."""
    rows = [row for name, of in _ROWS.items() if name in results for row in of(results[name])]
    lines = ["| What | Figure | Target | |", "|---|---|---|---|"]
    marks = {None: "", True: "met", False: "MISSED"}
    lines += [f"| {row.what} | {row.figure} | {row.target} | {marks[row.met]} |" for row in rows]
    said = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    return "\n".join([*lines, "", said + (" (short form: rough figures)" if results["short"] else "")])


def _most(what: str, value: float, unit: str, most: float) -> Row:
    return Row(what, f"{value:g} {unit}".strip(), f"at most {most:g} {unit}".strip(), value <= most)


def _imports(r: dict[str, Any]) -> Iterator[Row]:
    yield Row("start of an empty interpreter (floor)", f"{r['empty_s']:g} s ({r['empty_cpu_s']:g} s CPU)")
    yield Row("`import stanchion`", f"{r['import_s']:g} s ({r['import_cpu_s']:g} s CPU)")
    for name in ("help", "version"):
        command = "--help" if name == "help" else "version"
        row = _most(f"`stanchion {command}`", r[f"{name}_cpu_s"], "s CPU", 0.3)
        yield row._replace(figure=f"{row.figure} ({r[f'{name}_s']:g} s wall)")


def _append(r: dict[str, Any]) -> Iterator[Row]:
    yield Row("a write and sync of the disk (floor)", f"{r['write_and_sync_ms_p50']:g} ms")
    yield Row(
        "append, one by one",
        f"{r['one_by_one']['cpu_ms_per_append']:g} ms CPU, {r['one_by_one']['latency_ms_p50']:g} ms",
    )
    yield _most("append in a group of 100", r["group_100"]["cpu_ms_per_append"], "ms CPU", 0.1)
    yield Row("events a second in groups of 100", f"{r['group_100']['events_per_s']}")
    sizes = {int(name.removeprefix("steps_")): of for name, of in r.items() if name.startswith("steps_")}
    for steps, of in sizes.items():
        yield Row(
            f"file per turn at {steps:,} steps",
            f"{of['bytes_per_turn']:.0f} B = 1.5 x content + {of['over_1_5_content_per_turn']:.0f} B",
            "1.5 x content + 1,000 B", of["over_1_5_content_per_turn"] <= 1_000,
        )  # fmt: skip
    first, last = min(sizes), max(sizes)
    grown = (sizes[last]["bytes_per_turn"] / sizes[first]["bytes_per_turn"] - 1) * 100
    yield Row(f"bytes per turn at {last:,} steps over {first}", f"{grown:+.1f} %", "at most +5 %", grown <= 5)


def _turn(r: dict[str, Any]) -> Iterator[Row]:
    at_once = f"{r['runs']} runs at once"
    yield Row(f"model call, bare aiohttp, undecoded, {at_once} (floor)", f"{r['bare_aiohttp_ms']:g} ms CPU")
    yield Row("- model wire", f"{r['wire_ms']:g} ms CPU")
    yield Row(f"- journal ({r['appends_per_turn']:g} appends, each synced)", f"{r['journal_ms']:g} ms CPU")
    yield Row("- loop (decide, evolve, context)", f"{r['loop_ms']:g} ms CPU")
    yield Row("- engine, tool, start and end of the run (what is left)", f"{r['engine_ms']:g} ms CPU")
    yield _most(f"durable streamed turn, {at_once}", r["turn_ms"], "ms CPU", 6)
    yield Row("- SSE to one client, and the request", f"{r['sse_ms']:g} ms CPU")
    yield _most("durable streamed turn with one client a run", r["turn_with_client_ms"], "ms CPU", 9)
    yield Row("turns a second and core", f"{r['turns_per_s_core']}", "over 100", r["turns_per_s_core"] > 100)
    yield Row("turn over the floor", f"{r['over_floor']:g} x")
    if "crowded" in r:
        yield Row(f"durable streamed turn, {r['crowded']['runs']} runs at once", f"{r['crowded']['cpu_ms']:g} ms CPU")


def _first_token(r: dict[str, Any]) -> Iterator[Row]:
    yield Row("first token, bare client at the provider (floor)", f"{r['median']['bare']:g} ms")
    yield Row("one more HTTP hop: `GET /health` (floor)", f"{r['median']['hop']:g} ms")
    for name, what in (
        ("new_session", "new session"),
        ("new_session_of_user", "new session of a known user"),
        ("same_session", "next run of a session"),
    ):
        row = _most(f"first token, added by us: {what}", r["added_median"][name], "ms", 3)
        yield row._replace(figure=f"{row.figure} (fastest tenth: {r['added_p10'][name]:g} ms)")


def _loop(r: dict[str, Any]) -> Iterator[Row]:
    for turns in (10, 100, 1_000):
        plain, limited = (r[f"{kind}_{turns}"]["us_per_step"] for kind in ("plain", "limited"))
        yield Row(
            f"pure loop, a step at {turns:,} turns", f"{plain:g} us ({limited:g} us with every limit and a budget)"
        )


def _redact(r: dict[str, Any]) -> Iterator[Row]:
    for registered in (0, 10, 200):
        yield _most(f"redaction with {registered} secrets, a KB", r[f"whole_{registered}"], "ms CPU", 0.5)
        yield Row("- personal data as well", f"{r[f'whole_{registered}_pii']:g} ms CPU")
        yield Row("- as a stream of 20 characters at a time", f"{r[f'stream_{registered}']:g} ms CPU")


def _live(r: dict[str, Any]) -> Iterator[Row]:
    yield Row(
        f"{r['runs']:,} live runs: p95 of a turn", f"{r['turn_s_p95']:.2f} s = {r['p95_over_nominal']:g} x nominal",
        "at most 1.25 x", r["p95_over_nominal"] <= 1.25,
    )  # fmt: skip
    yield Row("empty process (floor)", f"{r['empty_mb']:g} MB")
    yield _most(f"{r['runs']:,} live runs: memory over the empty process", r["over_empty_mb"], "MB", 200)
    yield Row("memory of a live run", f"{r['kb_per_live_run']:g} KB")


def _waiting(r: dict[str, Any]) -> Iterator[Row]:
    yield Row(f"memory of a waiting run, where it was driven ({r['driven']:,})", f"{r['bytes_per_waiting_run']:,} B")
    yield Row(f"memory of a waiting run, after a start beside {r['stored']:,}", f"{r['bytes_per_stored_run']:,} B")
    yield Row(
        f"opening a store beside {r['stored']:,} waiting runs",
        f"{r['beside']['open_ms']:g} ms (empty store: {r['empty_store']['open_ms']:g} ms)",
    )
    yield Row(
        f"idle CPU beside {r['stored']:,} waiting runs over an empty store's", f"{r['idle_cpu_percent_of_runs']:g} %",
        "none (0.1 %)", r["idle_cpu_percent_of_runs"] <= 0.1,
    )  # fmt: skip
    yield Row("idle CPU in all (a look for other processes' rows every 0.5 s)", f"{r['idle_cpu_percent']:g} %")


def _queued(r: dict[str, Any]) -> Iterator[Row]:
    names = {
        "open_ms": "opening a store", "list_ms": "a page of 50 runs", "list_waiting_ms": "a page of 50 that wait",
        "pick_ms": "a look for what goes next (100)", "next_wake_ms": "a look for what is due next",
        "place_ms": "the place of the last in the queue", "first_ms": "another tenant's first: start to model call",
        "wake_ms": "waking one that waits: message to model call",
    }  # fmt: skip
    for store in ("sqlite", "postgres"):
        if f"{store}_full" not in r:
            yield Row(f"{store}: queued and waiting runs", "not measured: no PostgreSQL here")
            continue
        full, empty = r[f"{store}_full"], r[f"{store}_empty"]
        yield Row(f"{store}: beside {r['queued']:,} queued and {r['waiting']:,} waiting runs", "(in an empty store)")
        for key, name in names.items():
            beside = f" ({empty[key]:g} ms)" if key in empty else ""
            yield Row(f"- {name}", f"{full[key]:g} ms{beside}")
        cpu, server = full["idle_cpu_percent"], full["idle_server_cpu_percent"]
        yield Row("- idle CPU of the worker", f"{cpu:g} % ({empty['idle_cpu_percent']:g} %)")
        if store == "postgres":
            yield Row("- idle CPU of the database", f"{server:g} % ({empty['idle_server_cpu_percent']:g} %)")


def _budget(r: dict[str, Any]) -> Iterator[Row]:
    spent = r["spent_usd"]
    yield Row(
        f"{r['runs']} runs at once on one $1.00 budget", f"${spent:.4f} spent, ${r['reserved_usd']:.4f} left reserved",
        "$0.90 to $1.00", 0.9 <= spent <= 1.0,
    )  # fmt: skip


def _recordings(r: dict[str, Any]) -> Iterator[Row]:
    if "skipped" in r:
        yield Row("recorded exchanges", r["skipped"])
        return
    off = r["exchanges"] - r["decoded_equal"]
    yield Row("recorded exchanges decoded equal", f"{r['decoded_equal']} of {r['exchanges']}", "all but 5", off <= 5)
    yield Row(
        "recorded requests encoded equal",
        f"{r['encoded_equal']} of {r['requests']} ({r['encoded_unsupported']} say what we have no word for)",
    )


def _relay(r: dict[str, Any]) -> Iterator[Row]:
    if "skipped" in r:
        yield Row("deltas in another process", r["skipped"])
        return
    many, cpu = r["many"], r["cpu_ms_per_stream_s"]

    def lag(of: dict[str, float]) -> str:
        return f"{of['p50']:g} ms median, {of['p99']:g} ms p99"

    streams = f"{r['streams']} streams in another process"
    yield Row("a message of 1 KB from process to process, over PostgreSQL", lag(r["message_ms"]))
    yield Row("delta seen in another process, one stream", lag(r["one"]["delta_ms"]))
    yield Row(f"delta seen, {streams}", lag(many["delta_ms"]))
    yield Row(f"event seen, {streams}, commit and sync included", lag(many["event_ms"]))
    yield Row("event seen by as many readers in the worker itself", lag(many["event_here_ms"]))
    yield Row("a second of a watched stream, in the worker", f"{cpu['worker_more']:g} ms CPU more than unwatched")
    yield Row("- in the reader", f"{cpu['reader']:g} ms CPU (in the worker itself: {cpu['reader_here']:g})")
    yield Row("- in the database", f"{cpu['database']:g} ms CPU, {r['wal_bytes_per_sending']} B of log a sending")
    yield Row("a delta that nobody watches elsewhere", f"{r['unwatched_ns_per_delta']:g} ns", "nothing sent", True)


def _quota(r: dict[str, Any]) -> Iterator[Row]:
    free, scarce, tokens = r["free"], r["scarce"], r["tokens"]
    each = f"{r['workers']} workers, {free['calls_per_s']:g} calls/s on one limit"
    yield Row(
        f"shared limit: {each}", f"{free['asks_per_s']:g} asks/s, {free['server_cpu']:.1%} of a core in the database"
    )
    yield Row(".. calls that had to ask", f"{free['had_to_ask']:.1%}, wait p95 {free['wait_ms_p95']:g} ms")
    for name, found in (("requests", scarce), ("tokens", tokens)):
        what = f".. ten times the limit of {name} offered ({r['window_s']:g} s windows)"
        figure = f"{found['used']:.1%} used, {found['over']} above in any window, {found['asks_per_s']:g} asks/s"
        yield Row(what, figure, "at least 90 % used, 0 above", found["used"] >= 0.9 and not found["over"])


def _guard(r: dict[str, Any]) -> Iterator[Row]:
    at = f"at {r['history_tokens']:,} tokens of history"
    for name, what, most in (("plain", "the guard, a call", 0.5), ("cedar", ".. with policies in Cedar", 0.8)):
        row = _most(f"{what} {at}" if name == "plain" else what, r[f"{name}_ms"], "ms CPU", most)
        yield row._replace(figure=f"{row.figure} (p95 {r[f'{name}_p95_ms']:g} ms)")
    yield Row(".. the whole history read again, once after a claim", f"{r['read_all_ms']:g} ms CPU")


_ROWS: dict[str, Callable[[dict[str, Any]], Iterator[Row]]] = {
    "turn": _turn,
    "loop": _loop,
    "redact": _redact,
    "append": _append,
    "live": _live,
    "waiting": _waiting,
    "queued": _queued,
    "first_token": _first_token,
    "imports": _imports,
    "budget": _budget,
    "recordings": _recordings,
    "relay": _relay,
    "quota": _quota,
    "guard": _guard,
}
