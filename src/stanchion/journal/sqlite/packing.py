"""How an envelope lies in the file: deflated against a fixed dictionary, or as it is where that is not smaller.

The bytes that are hashed are those that come out again; this is only their rest in the file. Without it envelopes would
weigh half as much again as the contents. A first byte of 1 names the dictionary; "{" is an envelope as it is. A
dictionary is never changed, since files need it for ever: a better one is a new number.
"""

from __future__ import annotations

import zlib

_LABELS = (
    b'{"kind":"thinking","label":{"source":"model"},"key":"{"kind":"media","label":{"source":"document","name":"'
    b'{"kind":"text","label":{"source":"runtime","trust":"trusted"},"key":"'
    b'{"kind":"text","label":{"source":"user","trust":"user"},"key":"","secrecy":"'
    b'"type":"message_added","by":""type":"notice_added","kind":"limit"loop"output"budget"prefix_reset","reason":"'
    b'"bundle_changed"call_decided","decision":"approve"edit"reject"retry"record"fail","note":true'
    b'"tool_call_reconciled","answer":"done"not_done"unknown"limit_warned","limit":"","used":,"max":'
    b'"loop_detected","kind":"same_call","count":"cancel_requested"budget_refused","ledger":"","needed":,"left":0,"hard":'
    b'"budget_overrun"run_parked","reason":"dead_letter"run_revived","by":"'
)
_RUN = (
    b'{"seq":1,"at_ms":17,"epoch":0,"event":{"type":"run_started","run":"","tenant":"default","session":"","agent":"'
    b'","bundle":"","user":"","base":{"run":"","seq":,"hash":""},"parent":"","root":"","caps":{"nano_usd":,"turns":'
    b'"wall_s":},"ledgers":["user:","session:","tenant/day:2026-"all/month:20"],"dry_run":true,"deadline_ms":17'
    b'"event":{"type":"run_finished","outcome":"halted"failed"cancelled"escalated"done","reason":"","cost":,"done":["'
    b'"in_doubt":["'
    b'"event":{"type":"model_call_failed","turn":1,"attempt":2,"code":"rate_limited"overloaded"server_error'
    b'"timeout_first_byte","retryable":true,"retry_at_ms":17,"status":529'
    b'"event":{"type":"tool_call_failed","call":".0","attempt":1,"code":"tool_failed","in_doubt":true,"retry_at_ms":17'
)
_TURN = (
    b'"epoch":1,"event":{"type":"model_call_started","turn":1,"attempt":1,"route":0,"provider":"openai","model":"gpt-'
    b'"provider":"anthropic","model":"claude-sonnet-4-","messages":3,"prefix":"","reserved":,"ledgers":["tenant/day:20'
    b'"],"bound_tokens":,"deadline_ms":17'
    b'"epoch":1,"event":{"type":"model_call_finished","turn":1,"attempt":1,"finish":"stop","cost":'
    b'"finish":"tool_calls","cost":,"usage":{"input_tokens":,"cache_read_tokens":,"cache_write_tokens":,"output_tokens":'
    b',"reasoning_tokens":},"model":"claude-sonnet-4-","response":"msg_01","first_ms":,"took_ms":},'
    b'"parts":[{"kind":"text","label":{"source":"model"},"key":"","commit":"","size":},'
    b'{"kind":"tool_call","label":{"source":"model"},"key":"","commit":"","size":}]}'
    b'"event":{"type":"tool_call_judged","call":".0","revision":1,"action":"deny"ask"allow","rule":"tier:read","tool":"'
    b'","digest":"","expires_ms":17'
    b'"event":{"type":"tool_call_started","call":".0","attempt":1,"revision":1,"mode":"dry"reconcile","key":"'
    b'","deadline_ms":17'
    b'"event":{"type":"tool_call_finished","call":".0","outcome":"error"invalid"denied"rejected"pretended"ok","shown":'
    b',"cost":,"took_ms":},"parts":[{"kind":"tool_result","label":{"source":"tool","name":"'
    b'"},"key":"","commit":"","size":}]}{"seq":1,"at_ms":17'
)
_DICTIONARY_1 = _LABELS + _RUN + _TURN
_BITS = -12
_pack = zlib.compressobj(6, zlib.DEFLATED, _BITS, 5, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY_1)
_unpack = zlib.decompressobj(_BITS, _DICTIONARY_1)


def pack(envelope: bytes) -> bytes:
    """Make what is stored of an envelope."""
    deflater = _pack.copy()
    packed = b"\x01" + deflater.compress(envelope) + deflater.flush()
    return packed if len(packed) < len(envelope) else envelope


def unpack(stored: bytes) -> bytes:
    """Read an envelope. What cannot be read comes back as it lies, so that its hash fails and it is named."""
    if stored[:1] != b"\x01":
        return stored
    try:
        inflater = _unpack.copy()
        return inflater.decompress(stored[1:]) + inflater.flush()
    except zlib.error:
        return stored
