"""`stanchion version`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

from stanchion.cli.options import Output
from stanchion.cli.output import print_json, print_text


def version(output: Output = "text") -> None:
    """Show the versions of Stanchion, of Python and of SQLite.

    \b
    Example:
        stanchion version -o json
    """
    import platform

    import apsw

    found = {"stanchion": own_version(), "python": platform.python_version(), "sqlite": apsw.sqlite_lib_version()}
    if output == "json":
        print_json(found)
    else:
        print_text(f"stanchion {found['stanchion']} (Python {found['python']}, SQLite {found['sqlite']})")


def own_version() -> str:
    """The version that is installed; "unknown" where it is run from its source without an installation."""
    try:
        return version_of("stanchion")
    except PackageNotFoundError:
        return "unknown"
