"""Read a JSON body field by field, and refuse with the field's path what is not of the form it must have.

Paths are the provider's: `messages.0.content` on Anthropic's wire, `messages[0].content` on OpenAI's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec

from stanchion.sim.exchange import Refusal

_NAMES = {"str": "string", "int": "integer", "bool": "boolean", "list": "array", "dict": "object", "NoneType": "null"}


def word_set(text: str) -> frozenset[str]:
    """Split a list of names."""
    return frozenset(text.split())


def kind_of(value: object) -> str:
    """Name a value's JSON type."""
    return _NAMES.get(type(value).__name__, "number")


class Field:
    """A value of a body, where it stands, and the wire's way to complain.

    The path is put together only for a complaint: a long history has thousands of fields, and nearly all are right.
    """

    __slots__ = ("_key", "_parent", "style", "value")

    def __init__(
        self, value: Any, style: Callable[[str, str], Refusal], parent: Field | None = None, key: str | int = ""
    ) -> None:
        self.value: Any = value
        self.style = style
        self._parent = parent
        self._key = key

    @property
    def path(self) -> str:
        """Where it stands in the body."""
        before = self._parent.path if self._parent is not None else ""
        if isinstance(self._key, int) and self.style is not anthropic_refusal:
            return f"{before}[{self._key}]"
        return f"{before}.{self._key}" if before else str(self._key)

    def fail(self, message: str) -> Refusal:
        """Make the refusal of this field."""
        return self.style(self.path, message)

    def get(self, name: str) -> Field:
        """Take a member; None where it is absent."""
        members = self.object()
        return Field(members.get(name), self.style, self, name)

    def has(self, name: str) -> bool:
        """Say whether a member is there and not null."""
        return self.object().get(name) is not None

    def object(self) -> dict[str, Any]:
        """Read an object."""
        value = self.value
        if not isinstance(value, dict):
            raise self._wrong("an object")
        return cast("dict[str, Any]", value)

    def items(self) -> Iterator[Field]:
        """Walk an array."""
        array = self.value
        if not isinstance(array, list):
            raise self._wrong("an array")
        for i, value in enumerate(cast("list[Any]", array)):
            yield Field(value, self.style, self, i)

    def text(self) -> str:
        """Read a string."""
        if not isinstance(self.value, str):
            raise self._wrong("a string")
        return self.value

    def some_text(self) -> str:
        """Read a string that is not empty."""
        text = self.text()
        if not text:
            raise self.fail("Invalid value: must not be an empty string")
        return text

    def integer(self, least: int | None = None) -> int:
        """Read an integer of at least `least`."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self._wrong("an integer")
        if least is not None and self.value < least:
            raise self.fail(
                f"Invalid value: integer below minimum value. Expected a value >= {least}, got {self.value}"
            )
        return self.value

    def number(self, low: float, high: float) -> float:
        """Read a number within bounds."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self._wrong("a number")
        if not low <= self.value <= high:
            raise self.fail(f"Invalid value: expected a number between {low:g} and {high:g}, got {self.value}")
        return float(self.value)

    def boolean(self) -> bool:
        """Read a boolean."""
        if not isinstance(self.value, bool):
            raise self._wrong("a boolean")
        return self.value

    def one_of(self, *allowed: str) -> str:
        """Read one of some words."""
        text = self.text()
        if text not in allowed:
            raise self.fail(f"Invalid value: {text!r}. Supported values are: {', '.join(map(repr, allowed))}")
        return text

    def known(self, allowed: frozenset[str], message: str) -> None:
        """Refuse members that are not known."""
        for name in self.object():
            if name not in allowed:
                raise self.get(name).fail(message)

    def _wrong(self, wanted: str) -> Refusal:
        if self.value is None:
            return self.fail(f"Missing or null: expected {wanted}")
        return self.fail(f"Invalid type: expected {wanted}, but got {kind_of(self.value)} instead")


def anthropic_refusal(path: str, message: str) -> Refusal:
    """Complain as Anthropic does: the path before the message."""
    return Refusal(f"{path}: {message}" if path else message, param=path)


def openai_refusal(path: str, message: str) -> Refusal:
    """Complain as OpenAI does: the path in `param` and in the message."""
    return Refusal(f"{message} (in '{path}')" if path else message, param=path, code="invalid_value")


def read_body(body: bytes, style: Callable[[str, str], Refusal]) -> Field:
    """Decode a body, which must be a JSON object."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise style("", f"We could not parse the JSON body of your request: {error}") from None
    field = Field(value, style)
    field.object()
    return field


def json_object(text: str) -> dict[str, Any] | None:
    """Decode the text of a JSON object, or say None."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None
