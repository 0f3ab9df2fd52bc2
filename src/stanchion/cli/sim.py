"""`stanchion sim`: the simulated model provider as a command, and as a child that ends with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stanchion.cli.loop import run_loop
from stanchion.cli.options import Output
from stanchion.cli.output import print_line, print_text
from stanchion.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from stanchion.sim import SimServer, SimSettings

DEFAULT_PORT = 8009


def sim(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = DEFAULT_PORT,
    script: Annotated[
        str, typer.Option(metavar="FILE", help="A script (JSON) of what it says; without one a demo plays.")
    ] = "",
    fault: Annotated[
        list[str] | None, typer.Option(metavar="NAME[;FIELD=VALUE..]", help="Make this fault; may be repeated.")
    ] = None,
    first_s: Annotated[float | None, typer.Option(help="Seconds to the first token.", min=0)] = None,
    interval_s: Annotated[float | None, typer.Option(help="Seconds between two events of a stream.", min=0)] = None,
    events: Annotated[int | None, typer.Option(help="Events in a turn.", min=1)] = None,
    jitter: Annotated[float | None, typer.Option(help="How much the intervals vary.", min=0, max=1)] = None,
    rpm: Annotated[
        int, typer.Option(help="Requests that a key may make in a window; more are answered 429. 0: any.", min=0)
    ] = 0,
    tpm: Annotated[int, typer.Option(help="Tokens that a key may use in a window. 0: any.", min=0)] = 0,
    window_s: Annotated[
        float, typer.Option(help="The window of these limits, and of what GET /limits counts.", min=0.1)
    ] = 60.0,
    context_tokens: Annotated[
        int, typer.Option(help="The models' context: a longer request is refused as too long. 0: any.", min=0)
    ] = 0,
    output: Output = "text",
    with_parent: Annotated[bool, typer.Option(hidden=True, help="End when stdin closes.")] = False,
) -> None:
    """Run a simulated model provider: three wires, scripts, faults, token speed and an exact bill. No model is asked.

    \b
    Examples:
        stanchion sim
        stanchion sim --script my_script.json --first-s 0.4 --interval-s 0.02
        stanchion sim --fault "overloaded;times=2" --fault "cut;probability=0.1"
        ANTHROPIC_BASE_URL=http://127.0.0.1:8009 ANTHROPIC_API_KEY=sim stanchion run agent.py "hello"
        stanchion sim --rpm 50 --tpm 40000
        curl http://127.0.0.1:8009/bill
        curl http://127.0.0.1:8009/limits
    """
    from stanchion.sim import Pacing, Script, SimSettings, load_script
    from stanchion.sim.faults import parse_plan
    from stanchion.sim.limits import LimitSettings

    if script:
        try:
            played = load_script(read_file(script, "--script"))
        except ConfigError as error:
            raise ConfigError(f"{script}: {error}") from None
    else:
        played = Script()
    given = {"first_s": first_s, "interval_s": interval_s, "events": events, "jitter": jitter}
    said = {name: value for name, value in given.items() if value is not None}
    settings = SimSettings(
        host=host,
        port=port,
        script=played,
        pacing=Pacing(**said) if said else None,  # pyright: ignore[reportArgumentType]
        faults=tuple(parse_plan(text) for text in fault or ()),
        limits=LimitSettings(rpm, tpm, window_s),
        context_tokens=context_tokens,
    )
    try:
        run_loop(_serve(settings, as_json=output == "json", with_parent=with_parent))
    except OSError as error:
        raise cannot_listen(host, port, error) from None


def read_file(path: str, field: str) -> bytes:
    """Read a file that an option names. Raises `InputError`."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror}", field=field) from None


def cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    """Say that an address cannot be listened on, and what to do."""
    return ConfigError(
        f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port (0 takes a free one), "
        "or stop what listens there"
    )


async def _serve(settings: SimSettings, *, as_json: bool, with_parent: bool) -> None:
    from stanchion.sim import serve

    announce = _announce_json if as_json else _announce
    serving = asyncio.create_task(serve(settings, announce))
    if not with_parent:
        await serving
        return
    orphaned = asyncio.create_task(_stdin_closed())
    await asyncio.wait({serving, orphaned}, return_when=asyncio.FIRST_COMPLETED)
    for task in (serving, orphaned):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def _stdin_closed() -> None:
    """Wait until the parent is gone: the system closes the other end of the pipe, whatever it died of."""
    loop, closed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(0, lambda: None if os.read(0, 4096) else closed.set())
    try:
        await closed.wait()
    finally:
        loop.remove_reader(0)


def _announce(server: SimServer) -> None:
    print_text(
        f"stanchion sim: SIMULATED model provider, no model is asked, at {server.base_url}\n"
        f"  ANTHROPIC_BASE_URL={server.base_url} ANTHROPIC_API_KEY=sim-key\n"
        f"  OPENAI_BASE_URL={server.openai_base_url} OPENAI_API_KEY=sim-key\n"
        f"  curl {server.base_url}/bill"
    )


def _announce_json(server: SimServer) -> None:
    print_line(
        {
            "simulated": True,
            "base_url": server.base_url,
            "openai_base_url": server.openai_base_url,
            "pid": os.getpid(),
        }
    )
