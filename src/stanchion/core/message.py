"""What is said: labelled parts, messages, and the request and response of a model call.

The same parts stand in events, in requests and in responses, so that a byte of content has one form from the wire to
the journal and back. Every part carries a `Label` from the first version of the events on: where it came from, how far
it may be trusted, who may see it. Nothing here awaits or reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

Source = Literal["developer", "user", "tool", "document", "memory", "model", "reviewer", "runtime"]
Trust = Literal["trusted", "user", "untrusted"]
JsonSchema = Mapping[str, Any]


class Label(msgspec.Struct, frozen=True, omit_defaults=True):
    """Provenance of a part: its source (and which one), trust and secrecy."""

    source: Source
    name: str = ""
    """Which one, where the source is many: the tool's or the document's name."""
    trust: Trust = "untrusted"
    secrecy: str = "public"
    """A name in the deployment's secrecy lattice; "public" flows everywhere."""


DEVELOPER = Label("developer", trust="trusted")
USER = Label("user", trust="user")
MODEL = Label("model")
RUNTIME = Label("runtime", trust="trusted")
REVIEWER = Label("reviewer", trust="trusted")


class Text(msgspec.Struct, frozen=True, tag="text", omit_defaults=True):
    """Plain text. `data` holds provider fields that must be returned verbatim (citations, phase), as JSON text."""

    text: str
    label: Label
    wire: str = ""
    data: str = ""


class Thinking(msgspec.Struct, frozen=True, tag="thinking", omit_defaults=True):
    """A model's reasoning. It goes back to the same provider unchanged, and to no other.

    `text` is what may be read (a summary, or the whole). `signature` proves it to the provider. `data` is the provider's
    own JSON for it where the two are not enough (redacted thinking, encrypted reasoning items): replayed verbatim.
    """

    text: str
    label: Label
    signature: str = ""
    wire: str = ""
    data: str = ""


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call", omit_defaults=True):
    """A call the model proposes. Untrusted: it runs only after it was parsed, validated and judged.

    `arguments` is the JSON text as the model wrote it, which may be malformed. `id` is the provider's and may repeat
    within a run; our own identity of a call is (run, model call, index). `data` holds provider fields that must be
    returned verbatim (thought signatures, item ids), as JSON text.
    """

    id: str
    name: str
    arguments: str
    label: Label
    wire: str = ""
    data: str = ""


class Media(msgspec.Struct, frozen=True, tag="media", omit_defaults=True):
    """An image, a document, audio or video: inline (`data`, base64) or by reference (`url`, or a provider's file id)."""

    mime: str
    label: Label
    data: str = ""
    url: str = ""
    file_id: str = ""
    name: str = ""
    max_input_tokens: int = 0
    """The declared bound of what it is billed as; needed under a budget."""


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result", omit_defaults=True):
    """What the model is told of a call: `id` and `name` are those of the `ToolCall` it answers."""

    id: str
    name: str
    text: str
    label: Label
    error: bool = False
    media: tuple[Media, ...] = ()
    """Images and documents of the result, said after its text. A wire without them refuses the request."""


class Opaque(msgspec.Struct, frozen=True, tag="opaque"):
    """A provider's own block that we carry and do not read (hosted tools and their results), as JSON text.

    It goes back to the same wire verbatim and is left out of any other.
    """

    wire: str
    kind: str
    data: str
    label: Label


class Erased(msgspec.Struct, frozen=True, tag="erased"):
    """A part whose content was erased. Its label and commitment remain."""

    kind: str
    label: Label


Part = Text | Thinking | ToolCall | ToolResult | Media | Opaque | Erased
Role = Literal["user", "assistant"]


class Message(msgspec.Struct, frozen=True):
    """One side's turn. Tool results stand in a user message, in call order, before any text of it."""

    role: Role
    parts: tuple[Part, ...]


class ToolSchema(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool as the model is shown it. `parameters` is a closed-world JSON Schema of type object."""

    name: str
    description: str
    parameters: JsonSchema
    strict: bool = False


class OutputSchema(msgspec.Struct, frozen=True, omit_defaults=True):
    """The form a final answer must have, by the provider's strict schema mode."""

    name: str
    schema: JsonSchema
    description: str = ""


class CacheMark(msgspec.Struct, frozen=True, omit_defaults=True):
    """A cache breakpoint: what stands up to it is to be kept."""

    message: int
    """After a part of this message; -1: after tools and system."""
    part: int = -1
    """After this part of it; -1: after its last."""
    long: bool = False
    """For the long life."""


class ModelRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model call, said once for all wires. What a wire cannot say it leaves out or refuses with `ModelError`."""

    model: str
    messages: tuple[Message, ...]
    max_output_tokens: int
    system: tuple[Text, ...] = ()
    tools: tuple[ToolSchema, ...] = ()
    tool_choice: str = "auto"
    """"auto", "required", "none", or the name of one tool that must be called."""
    parallel_tool_calls: bool = True
    output: OutputSchema | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    thinking_tokens: int | None = None
    """Budget of extended thinking where a model takes a number of tokens."""
    effort: str = ""
    """Reasoning effort where a model takes a word (minimal, low, medium, high, ..)."""
    cache_marks: tuple[CacheMark, ...] = ()
    """Planned cache breakpoints, in order. Not part of the prefix."""
    options: Mapping[str, Any] = {}
    """Further fields of the provider's body, merged in last."""
    loaded: tuple[ToolSchema, ...] = ()
    """Tools that are not listed: results refer to them (`core/loading.py`), on a wire that has words for it."""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens as billed. The input kinds are disjoint: total input = the sum of the first four."""

    input_tokens: int = 0
    """Neither read from nor written to a cache."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    """Written for the short life (5 minutes)."""
    cache_write_long_tokens: int = 0
    """Written for the long life (1 hour)."""
    output_tokens: int = 0
    """All output, reasoning included."""
    reasoning_tokens: int = 0
    """Of the output, where the provider says it."""

    @property
    def total_input_tokens(self) -> int:
        """All input of the call, whatever its price."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.cache_write_long_tokens


Finish = Literal["stop", "tool_calls", "length", "refusal", "pause"]
"""Why a response ended: said all, wants tools, ran out of tokens, declined or was filtered, or asks to be continued."""


class ModelResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """A whole response. A stream without a finish reason never becomes one (invariant I12)."""

    parts: tuple[Part, ...]
    finish: Finish
    usage: Usage | None
    """None: the provider did not say; the bill is unknown and settles at its reservation."""
    model: str = ""
    """The model that answered, as the provider names it."""
    id: str = ""
    raw_finish: str = ""


class Delta(msgspec.Struct, frozen=True):
    """A piece of a response in the making. `index` is the part's; `name` is set on the first piece of a tool call."""

    kind: Literal["text", "thinking", "tool_call"]
    index: int
    text: str
    name: str = ""


def is_own(part: Part) -> bool:
    """Whether a part holds what only the model that said it can read."""
    return isinstance(part, Thinking | Opaque) or (isinstance(part, Text | ToolCall) and bool(part.data))


def text_of(parts: Iterable[Part]) -> str:
    """Join the text of parts."""
    return "".join(part.text for part in parts if isinstance(part, Text))
