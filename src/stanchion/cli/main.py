"""The entry point: the commands, put together, and the one place where a failure becomes a line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from stanchion.cli import (
    api,
    budgets,
    connect,
    costs,
    decide,
    dlq,
    doctor,
    forecast,
    grants,
    keys,
    lint,
    memory,
    move,
    policy,
    prices,
    quotas,
    run,
    runs,
    schedule,
    serve,
    shares,
    sim,
    skills,
    tools,
    verify,
    version,
    webhooks,
    worker,
)
from stanchion.cli.errors import ExitCode, report, say_error
from stanchion.core.errors import StanchionError

app = typer.Typer(
    name="stanchion", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
)


@app.callback()
def stanchion() -> None:
    """The production runtime for LLM agents: durable, within budget, inside its capabilities, provable.

    \b
    Examples:
        stanchion run agent.py "hello" --simulated
        stanchion serve agent.py
        stanchion runs ls

    \b
    Exit codes: 0 done, 1 failed, 2 usage, 3 halted by a limit or a budget, 4 waits for a person,
    5 cancelled, 6 handed over to a person, 70 internal, 130 interrupted.
    Every command takes -o json. STANCHION_DEBUG=1 shows the traceback of an error.
    """


app.command()(serve.serve)
app.command()(worker.worker)
app.command()(api.api)
app.command()(run.run)
app.add_typer(runs.app)
app.add_typer(dlq.app)
app.command()(decide.decide)
app.add_typer(grants.app)
app.command()(verify.verify)
app.command()(move.export)
app.command(name="import")(move.import_)
app.command()(sim.sim)
app.command()(doctor.doctor)
app.command()(lint.lint)
app.add_typer(keys.app)
app.command()(connect.connect)
app.add_typer(connect.app)
app.add_typer(budgets.app)
app.add_typer(shares.app)
app.add_typer(quotas.app)
app.add_typer(memory.app)
app.add_typer(schedule.app)
app.add_typer(webhooks.app)
app.add_typer(shares.workers)
app.add_typer(policy.app)
app.add_typer(skills.app)
app.add_typer(tools.app)
app.command()(costs.costs)
app.command()(forecast.forecast)
app.command()(prices.prices)
app.command()(version.version)

SHORTHAND = {"--simulated=auto": "--simulated-if-no-key"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    sys.exit(call(sys.argv[1:] if arguments is None else arguments))


def call(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; whatever goes wrong is one line on stderr."""
    given = [SHORTHAND.get(argument, argument) for argument in arguments]
    try:
        code = app(given, prog_name="stanchion", standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:
        return report(KeyboardInterrupt())
    except (BrokenPipeError, SystemExit):  # typer turns the one into the other
        return _reader_gone()
    except (StanchionError, OSError, KeyboardInterrupt) as error:
        return report(error)
    except Exception as error:
        return _usage(error) if hasattr(error, "format_message") else report(error)
    return code if isinstance(code, int) else ExitCode.DONE


def _usage(error: Exception) -> int:
    """Say what is wrong with the command line. Without arguments that is no error but a wish for help."""
    message = str(error.format_message())  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(message + "\n")
        return ExitCode.USAGE
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "stanchion")
    message = message.replace("Value error, ", "").rstrip(".")
    say_error(f"{message}; see `{path} --help`")
    return ExitCode.USAGE


def _reader_gone() -> int:
    """Whoever read our output has enough (`| head`): end quietly, and keep Python from flushing into nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.DONE
