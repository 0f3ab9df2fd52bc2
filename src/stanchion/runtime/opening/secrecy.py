"""Which secrets a process knows, and that no log line of ours tells them.

Registered are what `Runtime.open(secrets=)` names, the variables `STANCHION_SECRET_<NAME>`, the keys of the model providers, and
the password of the database; the broker adds each token that it mints. A secret that the operator named is refused where it
is too short to be told from other text; one that is only found in the environment is then left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from stanchion.core.bundle import Bundle
from stanchion.core.errors import ConfigError, InputError
from stanchion.guard.redact import Redactor
from stanchion.guard.secret import Secrets
from stanchion.model.providers import PROVIDERS

PREFIX = "STANCHION_SECRET_"
LEAST_KEY = 12
"""Characters of the shortest key of a provider that is looked for: who runs a server of his own may call it "none"."""
LOGGERS = (
    *(
        "stanchion",
        "stanchion.engine",
        "stanchion.journal",
        "stanchion.runtime",
        "stanchion.server",
        "stanchion.access",
    ),
    *("uvicorn.error", "asyncio"),
)
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_formatter = logging.Formatter()


def known_secrets(given: Mapping[str, str], environment: Mapping[str, str], data: str | Path = "") -> Secrets:
    """Register what this process knows. Raises `ConfigError` (a name, a value that is too short)."""
    secrets = Secrets()
    for name, value in given.items():
        secrets.add(name, value)
    for variable, value in environment.items():
        if variable.startswith(PREFIX) and value.strip():
            secrets.add(variable.removeprefix(PREFIX), value)
    found = {known.key_env: environment.get(known.key_env, "") for known in PROVIDERS.values()}
    found["DATABASE_PASSWORD"] = _password(data)
    for name, value in found.items():
        if len(value.strip()) >= LEAST_KEY:
            secrets.add(name, value)
    return secrets


def _password(data: str | Path) -> str:
    if not isinstance(data, str) or "://" not in data:
        return ""
    try:
        return unquote(urlsplit(data).password or "")
    except ValueError:
        return ""


def check_bundles(bundles: Iterable[Bundle], secrets: Secrets) -> None:
    """Refuse an agent that holds a secret: it would be stored, and said to the model. Raises `ConfigError`."""
    for bundle in bundles if secrets else ():
        for name in bundle.__struct_fields__:
            spans = secrets.spans(msgspec.json.encode(getattr(bundle, name)).decode())
            if spans:
                text = f"its {name} holds {spans[0].told}, which no model and no store may see; take it out"
                raise ConfigError(f"agent {bundle.agent!r}: {text} (a tool gets it from `deps`, or from a credential)")


def check_names(secrets: Secrets, **names: str) -> None:
    """Refuse a name that holds a secret: it would be stored, and shown in lists. Raises `InputError` with the field."""
    for field, name in names.items():
        if spans := secrets.spans(name):
            raise InputError(
                f"holds {spans[0].told}, which may not be stored; use another", field=field.replace("__", ".")
            )


class Redacting(logging.Filter):
    """Takes secrets and personal data out of the records of our loggers, before any handler sees them."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._line = redactor.line

    def open(self) -> None:
        """Begin."""
        for name in LOGGERS:
            logging.getLogger(name).addFilter(self)

    def close(self) -> None:
        """Stop."""
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a record; it is always let through."""
        message = record.getMessage()
        if (said := self._line(message)) != message:
            record.msg, record.args = said, ()
        for name, value in vars(record).items():
            if name not in _PLAIN and isinstance(value, str):
                setattr(record, name, self._line(value))
        if record.exc_info and record.exc_info[0] is not None:
            trace = _formatter.formatException(record.exc_info)
            if (said := self._line(trace)) != trace:
                record.exc_info, record.exc_text = None, said
        return True
