"""The OpenAPI document: complete, true, and served without another host."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from stanchion.core.errors import JournalError
from stanchion.server.app import BODIES, create_app
from stanchion.server.log import AGAIN_S, Again, Line, configure
from tests.server.serving import served


@pytest.fixture(scope="module")
def document() -> Any:
    return create_app(None).openapi()  # type: ignore[arg-type] the document needs no runtime


def test_every_reference_leads_somewhere(document: Any) -> None:
    """No `$ref` to a schema that is not there."""
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])
    assert {model.__name__ for model in BODIES} <= references


def test_every_route_is_described(document: Any) -> None:
    """A summary, a description, a name of its own, its errors, and the key it needs."""
    names = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            names.append(operation["operationId"])
            assert operation["summary"], path
            assert operation["description"], path
            if path.startswith("/v1/"):
                assert {"400", "401", "404", "413", "415", "422", "429", "503"} <= set(operation["responses"]), path
                assert operation["security"] == [{"HTTPBearer": []}]
                assert ("requestBody" in operation) == (method not in ("get", "delete")), path
    assert len(names) == len(set(names))


async def test_the_document_is_served_and_no_page_loads_from_elsewhere(tmp_path: Path) -> None:
    """/openapi.json is there; there is no docs page, which would need another host."""
    async with served(tmp_path) as server:
        said = await server.call("GET", "/openapi.json")
        assert said.json["info"]["title"] == "Stanchion"
        assert "StartRun" in said.json["components"]["schemas"]
        for path in ("/docs", "/redoc"):
            assert (await server.call("GET", path)).status == 404


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_record_is_one_line(form: Any) -> None:
    """Whatever is in it: newlines, extras, a traceback."""
    facts = {"exc_info": (RuntimeError, RuntimeError("two\nlines"), None), "id": "err_1", "path": "/v1/a b"}
    record = logging.makeLogRecord({"name": "stanchion.server", "msg": "it\nfailed", "levelname": "ERROR"} | facts)
    line = Line(form).format(record)
    assert "\n" not in line
    assert "err_1" in line
    assert "RuntimeError" in line
    if form == "json":
        said = json.loads(line)
        assert (said["message"], said["level"], said["path"]) == ("it\nfailed", "error", "/v1/a b")
        assert "two\nlines" in said["trace"]


def test_what_was_ended_on_purpose_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    """uvicorn's tracebacks of cancelled requests and asyncpg's of connections are dropped; other warnings are one line."""
    names = ("stanchion", "uvicorn", "asyncpg")
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names}
    try:
        configure("text")
        uvicorn = logging.getLogger("uvicorn.error")
        error = asyncio.CancelledError()
        uvicorn.error("Exception in ASGI application\n", exc_info=(type(error), error, None))
        uvicorn.error("ASGI callable returned without completing response.")
        uvicorn.info("Shutting down")
        uvicorn.warning("Invalid HTTP request received.")
        logging.getLogger("asyncpg.pool").error("a connection failed", exc_info=(type(error), error, None))
    finally:
        for name, (handlers, propagate) in before.items():
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(logging.NOTSET)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("uvicorn.error: Invalid HTTP request received.")


def test_a_store_that_is_away_is_not_told_twice_a_second() -> None:
    """One line in ten seconds, which counts the others; a request's line, and what names another run, is always told."""
    again, error = Again(), JournalError("the database was lost")

    def told(at: float, *words: object, **more: object) -> logging.LogRecord | None:
        facts = {"name": "stanchion.engine", "msg": "it failed: %s", "args": words, "created": at} | more
        record = logging.makeLogRecord(facts)
        return record if again.filter(record) else None

    assert [told(100.0 + at, error) is not None for at in (0.0, 0.5, 1.0, 9.9)] == [True, False, False, False]
    record = told(100.0 + AGAIN_S, error)
    assert record is not None
    assert vars(record)["left_out"] == 3
    assert told(111.0, error, id="err_1") is not None
    assert told(111.0, "run_1", error) is not None
    assert told(111.0, "run_2", error) is not None
    assert told(111.0, "run_2") is not None
