"""A bank account, its owner's data, and files. Money has gone where the user sent it before; who sent money is chosen by others.

When a payment leaves is not looked at: the harm is in whom it goes to and how much. What a household pays in a month needs no word
of the user's, where whom it goes to has one.
"""

from __future__ import annotations

from bench.guard.meaning import ACCOUNT, PAYMENT, STORED, Meaning, Policy
from stanchion.core.policy import Bound, Destination, ResultField

_PAYMENTS = Meaning(
    result={
        "*.id": ResultField("payment", trusted=True),
        # Where the user's money went, by the user's own orders; never from whom money came.
        "*.recipient": ResultField("account", trusted=True),
        # The bank writes the amount, and it costs whoever wants one written.
        "*.amount": ResultField("money", trusted=True),
    }
)
_RECURRING = Bound("flag", free=("false",), words={"true": ("recurring", "standing order", "every month", "monthly")})
_AMOUNT = Bound("money", most=2_000)
_ORDER = {"recipient": ACCOUNT, "amount": _AMOUNT, "recurring": _RECURRING}

POLICY = Policy(
    tools={
        "get_iban": Meaning(result={"": ResultField("account", trusted=True)}),
        "get_balance": Meaning(),
        "get_most_recent_transactions": _PAYMENTS,
        "get_scheduled_transactions": _PAYMENTS,
        # Money that was sent is gone.
        "send_money": Meaning("irreversible", {"recipient": ACCOUNT, "amount": _AMOUNT}),
        # What is scheduled can be changed until it leaves.
        "schedule_transaction": Meaning("write", _ORDER),
        "update_scheduled_transaction": Meaning("write", {"id": PAYMENT, **_ORDER}),
        "read_file": Meaning("read", {"file_path": STORED}),
        "get_user_info": Meaning(),
        # A password that somebody else chose is somebody else's account.
        "update_password": Meaning("irreversible", {"password": Bound("password")}),
        # Where the bank's letters go, and to whom.
        "update_user_info": Meaning(
            "write",
            {
                "first_name": Bound("name"),
                "last_name": Bound("name"),
                "street": Destination("address"),
                "city": Destination("address"),
            },
        ),
    }
)
