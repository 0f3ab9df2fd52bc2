"""Plan where the provider is asked to keep the beginning of a request, so that the next one reads it for a tenth of the price.

With *marked* caches a request says what to keep. A request marks its end, for the next one begins with all of it (invariant I8); and
the end of tools and identity, which other sessions of the agent begin with as well. The provider finds what it keeps within so many
blocks before a mark: where a turn added more, one mark more stands in between. With *breakpoints* the end is kept unasked, and only the
end of tools and identity is marked. *Automatic* caches need none of it.
"""

from __future__ import annotations

from typing import Literal

from stanchion.core.caching import CacheRules
from stanchion.core.message import CacheMark, Message

Keeps = Literal["end", "read", "nothing"]
"""What of a request is to be kept: all of it; what was sent before it and is kept already; nothing but what all sessions begin with."""


def plan(
    messages: tuple[Message, ...],
    sent: int,
    rules: CacheRules | None,
    *,
    preamble: bool,
    long: bool = False,
    keeps: Keeps = "end",
) -> tuple[CacheMark, ...]:
    """Plan the marks of a request.

    `sent`: how many parts the request before it had, whose end is kept. `preamble`: there are tools or an identity. `long`: what all
    sessions begin with, and what this one has so far, is kept for the long life. `keeps`: "read" marks what was sent before, where it is
    read and nothing is written.
    """
    if rules is None or rules.kind == "automatic" or not messages:
        return ()
    marks = [CacheMark(-1, long=long)] if preamble else []
    if keeps != "end":
        return (*marks, CacheMark(*_place(messages, sent - 1), long=long)) if keeps == "read" and sent else tuple(marks)
    new = sum(len(message.parts) for message in messages) - sent
    if sent > 0 and rules.lookback and new >= rules.lookback:
        message, part = _place(messages, sent + rules.lookback - 2)
        marks.append(CacheMark(message, part, long=long))
    marks.append(CacheMark(len(messages) - 1, long=long))
    return tuple(marks[: rules.marks])


def _place(messages: tuple[Message, ...], number: int) -> tuple[int, int]:
    """Find the message and the place in it of a part by its number in all."""
    for index, message in enumerate(messages):
        if number < len(message.parts):
            return index, number
        number -= len(message.parts)
    return len(messages) - 1, -1
