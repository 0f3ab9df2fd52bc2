"""Turn what a tool returned into the text that the model reads, and check it against what the tool says it returns."""

from __future__ import annotations

import typing
from typing import Any, cast

import msgspec
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import to_json

from stanchion.core.bundle import ToolSpec
from stanchion.core.errors import InputError
from stanchion.core.money import parse_usd
from stanchion.toolbox.answer import Answer, Failure, Result
from stanchion.toolbox.signature import EMPTY
from stanchion.toolbox.struct import adapter_of

MAX_CHARS = 10_000_000
"""Of a result that is kept at all. How much of it the model is shown at once is the tool's `max_result_chars`."""

NOTHING = "ok"
"""What the model reads of a tool that returns None."""


class ResultType:
    """What a tool says it returns."""

    def __init__(self, annotation: Any) -> None:
        origin = typing.get_origin(annotation)
        inner = typing.get_args(annotation)[0] if origin is Result else annotation
        self._annotation = inner
        self._is_open = inner in (EMPTY, Any, object, Result)
        self._adapter: TypeAdapter[Any] | None = None
        if self._is_open or inner in (str, None, type(None)):
            return
        try:
            self._adapter = adapter_of(inner)
        except PydanticUserError:
            self._is_open = not isinstance(inner, type)

    def answer(self, returned: Any, spec: ToolSpec) -> Answer | Failure:
        """Make the answer of what was returned.

        A result that does not fit is a failure of a read. Of anything else the effect has happened, so it is an answer,
        with a warning that keeps the model from doing it again.
        """
        cost, note = 0, ""
        if isinstance(returned, Result):
            result = cast("Result[Any]", returned)
            returned = result.value
            try:
                cost = parse_usd(result.cost_usd, field="cost_usd")
            except (InputError, ArithmeticError, ValueError) as error:
                note = f"the cost was not taken: {error}"
        try:
            return Answer(_cut(self._text(returned)), cost, note)
        except (ValidationError, ValueError, TypeError, RecursionError) as error:
            wrong = _why(error)
        except Exception as error:  # a serializer of the user's failed in a way of its own
            wrong = f"{type(error).__name__}: {error}"
        if spec.effect == "read":
            return Failure("result_invalid", f"{spec.name} returned what it must not: {wrong}")
        text = (
            f"{_cut(_anyhow(returned))}\n[warning: {spec.name} was carried out, but its result is not of the expected "
            f"form: {wrong}. Do not repeat the call.]"
        )
        return Answer(text, cost, f"{note}; {wrong}" if note else wrong)

    def _text(self, value: Any) -> str:
        if self._adapter is not None:
            checked = self._adapter.validate_python(value)
            if isinstance(checked, str):
                return checked
            return NOTHING if checked is None else self._adapter.dump_json(checked, by_alias=True).decode()
        if not self._is_open:
            self._must_be_instance(value)
        if isinstance(value, str):
            return str(value)
        return NOTHING if value is None else to_json(value, fallback=_plain).decode()

    def _must_be_instance(self, value: Any) -> None:
        wanted = type(None) if self._annotation is None else self._annotation
        if not isinstance(value, wanted):
            raise TypeError(f"expected {wanted.__name__}, got {type(value).__name__}")


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    raise TypeError(f"{type(value).__name__} has no JSON form; return a dataclass, a model, a dict or text")


def _anyhow(value: Any) -> str:
    """Write a value in some form, whatever it is."""
    if isinstance(value, str):
        return value
    try:
        return to_json(value, fallback=repr).decode()
    except Exception:
        return f"a value of type {type(value).__name__}"


def _why(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    said: list[str] = []
    for found in error.errors(include_url=False, include_context=False, include_input=False)[:3]:
        path = ".".join(str(segment) for segment in found["loc"])
        said.append(f"{path}: {found['msg']}" if path else found["msg"])
    return "; ".join(said)


def _cut(text: str) -> str:
    if len(text) > MAX_CHARS:
        return f"{text[:MAX_CHARS]}\n[cut: the result had {len(text)} characters, of which {MAX_CHARS} are kept]"
    return text
