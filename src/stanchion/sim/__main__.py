"""`python -m stanchion.sim`: run the simulated provider until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import msgspec

from stanchion.core.errors import InputError, StanchionError
from stanchion.sim.embed import Ready
from stanchion.sim.faults import Fault, parse_plan
from stanchion.sim.limits import LimitSettings
from stanchion.sim.script import Pacing, Script, load_script
from stanchion.sim.server import SimServer, serve
from stanchion.sim.settings import SimSettings


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and serve; exit code 2 for bad input."""
    arguments = _parser().parse_args(argv)
    try:
        settings = _settings(arguments)
    except (StanchionError, OSError) as error:
        sys.stderr.write(f"stanchion sim: {error}\n")
        return 2
    announce = _print_json if arguments.json else _print_text
    run = serve(settings, announce)
    try:
        if sys.platform == "win32":
            asyncio.run(run)
        else:
            import uvloop

            uvloop.run(run)
    except OSError as error:
        sys.stderr.write(f"stanchion sim: cannot listen on {settings.host}:{settings.port}: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stanchion.sim", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8009, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--script", type=Path, help="a script (JSON); without one the built-in demo plays")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME[;FIELD=VALUE]", help=", ".join(Fault))
    parser.add_argument("--first-s", type=float, help="time to the first token")
    parser.add_argument("--interval-s", type=float, help="time between two events of a stream")
    parser.add_argument("--events", type=int, help="events in a turn")
    parser.add_argument("--jitter", type=float, help="0 to 1: how much intervals vary")
    parser.add_argument("--rpm", type=int, default=0, help="requests in a window for each key; more are answered 429")
    parser.add_argument("--tpm", type=int, default=0, help="tokens in a window for each key")
    parser.add_argument("--window-s", type=float, default=60.0, help="the window of the limits and of GET /limits")
    parser.add_argument(
        "--context-tokens", type=int, default=0, help="longer requests are refused as too long; 0: none is"
    )
    retention = "what OpenAI's models before gpt-5.6 keep, and for how long, where a request does not say"
    parser.add_argument("--retention", choices=["in_memory", "24h"], default="in_memory", help=retention)
    parser.add_argument("--json", action="store_true", help="print one JSON line when it listens")
    return parser


def _settings(arguments: argparse.Namespace) -> SimSettings:
    script = load_script(arguments.script.read_bytes()) if arguments.script else Script()
    given = {name: getattr(arguments, name) for name in ("first_s", "interval_s", "events", "jitter")}
    set_ = {name: value for name, value in given.items() if value is not None}
    faults = tuple(parse_plan(text) for text in arguments.fault)
    pacing = Pacing(**set_) if set_ else None
    limits = LimitSettings(arguments.rpm, arguments.tpm, arguments.window_s)
    if min(limits.rpm, limits.tpm) < 0 or limits.window_s <= 0:
        raise InputError("--rpm and --tpm are 0 or more, --window-s is above 0")
    return SimSettings(
        host=arguments.host,
        port=arguments.port,
        script=script,
        pacing=pacing,
        faults=faults,
        limits=limits,
        context_tokens=arguments.context_tokens,
        retention=arguments.retention,
    )


def _print_json(server: SimServer) -> None:
    ready = Ready(True, server.base_url, server.openai_base_url, os.getpid())
    sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
    sys.stdout.flush()


def _print_text(server: SimServer) -> None:
    sys.stdout.write(
        f"stanchion sim: SIMULATED model provider, no model is asked, at {server.base_url}\n"
        f"  ANTHROPIC_BASE_URL={server.base_url} ANTHROPIC_API_KEY=sim-key\n"
        f"  OPENAI_BASE_URL={server.openai_base_url} OPENAI_API_KEY=sim-key\n"
        f"  curl {server.base_url}/bill\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
