"""The errors, in one tree.

    StanchionError                  code, retryable, fault
    +-- ConfigError                 an agent, a setting or a bundle cannot be used as it stands        fault: caller
    +-- InputError                  a request, an argument or a file is not of the form it must have   fault: caller
    |   +-- NotFound                there is no such run, session, agent or decision
    |   +-- Conflict                it is not possible now (busy session, other body under one key, decided already)
    |   |   +-- QueueFull           too many runs wait already; try again later
    |   +-- Unauthorized            no key, or a key that is not known or may not do this
    +-- ModelError                  a model call failed                                                fault: model
    +-- ToolError                   a tool failed in a way the model should read                       fault: tool
    |   +-- NotDone                 .. nothing was done, and it may work if it is tried again
    |   +-- ToolTimeout             .. by not answering in time
    +-- CredentialError             a credential that a tool needs could not be had                    fault: caller
    +-- JournalError                the store failed                                                   fault: us
        +-- StaleAppend             another driver moved the run: stop, change nothing
        +-- UnreadInbox             a run would end that has something unread: read it, decide again
        +-- CommitUnknown           it is not known whether the append was made: read again
        +-- BrokenChain             an event is not what its hash says
        +-- UnknownEvent            a newer program wrote what this one cannot read
        +-- StoreFull               the disk or the database takes no more

A class's docstring is its default message and says what to do next. Denied, over budget and tool failed are events of a
run and not exceptions: they end up here only where a person called something that cannot be done.
"""

from __future__ import annotations

from typing import Literal

from stanchion.core.message import Part, Usage

Fault = Literal["caller", "model", "tool", "us"]


class StanchionError(Exception):
    """Something went wrong in Stanchion."""

    code: str = "error"
    retryable: bool = False
    fault: Fault = "us"

    def __init__(self, message: str = "", *, code: str = "", retryable: bool | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n\n")[0].replace("\n    ", " "))
        if code:
            self.code = code
        if retryable is not None:
            self.retryable = retryable


class ConfigError(StanchionError):
    """This cannot be run as it is configured; change the setting the message names."""

    code = "config"
    fault: Fault = "caller"


class InputError(StanchionError):
    """This input is not of the form it must have; correct the field the message names.

    `field` is the path of the offending field (`limits.usd`), or "".
    """

    code = "invalid_input"
    fault: Fault = "caller"

    def __init__(self, message: str = "", *, field: str = "", code: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message, code=code)
        self.field = field


class NotFound(InputError):
    """There is no such thing; list what there is and call again."""

    code = "not_found"


class Conflict(InputError):
    """This is not possible in the present state; read the state and decide again."""

    code = "conflict"


class QueueFull(Conflict):
    """As many runs wait to begin as may; nothing was kept. Try again after `retry_after_s`.

    `bound` names what was met, `position` is the place in the queue that the run would have had.
    """

    code = "queue_full"
    retryable = True

    def __init__(self, message: str = "", *, bound: str, limit: int, position: int, retry_after_s: int) -> None:
        super().__init__(message)
        self.bound = bound
        self.limit = limit
        self.position = position
        self.retry_after_s = retry_after_s


class Unauthorized(InputError):
    """No valid API key; send `Authorization: Bearer <key>` (make one with `stanchion keys add`)."""

    code = "unauthorized"


ModelErrorCode = Literal[
    "connect",  # no connection: nothing was sent
    "timeout_connect",
    "timeout_first_byte",
    "timeout_idle",  # stalled between two events
    "timeout_total",
    "cut",  # the connection broke in mid-response
    "early_end",  # the stream ended cleanly without a finish reason (I12)
    "garbled",  # what came is not of the wire's form
    "rate_limited",  # 429
    "overloaded",  # 529, 503, or an error event that says so
    "server_error",  # other 5xx or an error event of that kind inside a 200
    "bad_request",  # 400, 413, 422: the request will never work as it is
    "context_overflow",  # the request is longer than the model's window
    "auth",  # 401, 403
    "not_found",  # 404: no such model or path
    "quota",  # billing or spending limit at the provider
    "content_filter",  # refused by the provider's filter before an answer
    "cancelled",  # we stopped it
    "unsupported",  # the wire cannot say this request
]


class ModelError(StanchionError):
    """A model call failed.

    `partial` is what had come, `usage` what the provider billed for it if it said so. `sent` is False only where it is
    certain that the request never left, so that nothing can have been billed. `retry_after_s` is the provider's wish.
    """

    code = "server_error"
    fault: Fault = "model"

    def __init__(
        self,
        message: str,
        *,
        code: ModelErrorCode,
        retryable: bool,
        status: int = 0,
        retry_after_s: float | None = None,
        partial: tuple[Part, ...] = (),
        usage: Usage | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(message, code=code, retryable=retryable)
        self.status = status
        self.retry_after_s = retry_after_s
        self.partial = partial
        self.usage = usage
        self.sent = sent


class ToolError(StanchionError):
    """The tool failed. Raise it in a tool to tell the model, in words it can use, what to correct.

    Raised by a tool it is a definite answer: the effect was not done, and the call is not in doubt.
    """

    code = "tool_failed"
    fault: Fault = "tool"


class NotDone(ToolError):
    """Nothing was done, and the call may work if it is tried again (after `retry_after_s` seconds, if given)."""

    code = "tool_unavailable"
    retryable = True

    def __init__(self, message: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ToolTimeout(ToolError):
    """The tool did not answer within its timeout; whether it did anything is not known."""

    code = "tool_timeout"


class CredentialError(StanchionError):
    """A credential that the tool needs could not be had, so the tool was not called; do what the message says.

    Codes: `credential_missing` (it is not set), `credential_unconnected` (the user has not allowed it, or no more),
    `credential_refused` (who gives it out says no), `credential_unavailable` (.. does not answer; try again).
    """

    code = "credential_refused"
    fault: Fault = "caller"


class JournalError(StanchionError):
    """The store failed; see the message, and run `stanchion doctor`."""

    code = "journal"


class StaleAppend(JournalError):
    """Another worker drives this run now; this one stops and changes nothing."""

    code = "stale_append"


class UnreadInbox(JournalError):
    """The run has something in its inbox that its driver has not read; it reads it and decides again."""

    code = "unread_inbox"


class CommitUnknown(JournalError):
    """It is not known whether the append was committed; read the run again before doing anything."""

    code = "commit_unknown"


class BrokenChain(JournalError):
    """An event is not what its hash says: the journal was changed after it was written."""

    code = "broken_chain"

    def __init__(self, message: str = "", *, run: str = "", seq: int = 0) -> None:
        super().__init__(message)
        self.run = run
        self.seq = seq


class UnknownEvent(JournalError):
    """A newer Stanchion wrote what this one does not know; upgrade this process to read it. Newer workers go on with it."""

    code = "unknown_event"

    def __init__(self, message: str = "", *, seq: int = 0) -> None:
        super().__init__(message)
        self.seq = seq


class StoreFull(JournalError):
    """The store takes no more data; free space on its disk, then the runs go on by themselves."""

    code = "store_full"
    retryable = True
