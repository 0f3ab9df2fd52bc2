"""`stanchion api`: take requests over HTTP and leave the driving of runs to workers."""

from __future__ import annotations

from stanchion.cli.desk import Where
from stanchion.cli.loop import run_loop
from stanchion.cli.options import Data, Model, Output
from stanchion.cli.serve import AccessLog, Files, Grace, Host, Port, http_settings, serve_http


def api(
    files: Files,
    host: Host = "127.0.0.1",
    port: Port = 8420,
    data: Data = "",
    grace_s: Grace = 10.0,
    access_log: AccessLog = False,
    model: Model = "",
    output: Output = "text",
) -> None:
    """Serve agents over HTTP and drive none of their runs: `stanchion worker` does, here or on other machines.

    \b
    Every request works as with `stanchion serve`: a run is accepted, waited for, streamed and decided on here, wherever
    it is driven. No model key is needed. Give it the agent files (and --model) that the workers have. On a data file it
    works beside the one worker, on the same machine; many workers need --data postgresql://..

    \b
    Examples:
        stanchion api agent.py --data postgresql://stanchion@db.internal/agents
        stanchion api agent.py --data /srv/agents/stanchion.db --port 8080
    """
    where, settings = Where(data=data).in_a_file(), http_settings(host, port, grace_s, access_log=access_log)
    run_loop(serve_http(files, where, None, settings, model=model, as_json=output == "json"))
