"""A team's messenger, and the web. Channels and members are the organisation's own records; addresses of the web are nobody's."""

from __future__ import annotations

from bench.guard.meaning import CHANNEL, EMAIL, URL, USER, Meaning, Policy
from stanchion.core.policy import Destination, ResultField

_MESSAGES = Meaning(
    result={
        # Only members can send, and the messenger says who did: no sender writes this field.
        "*.sender": ResultField("user", trusted=True),
        # A page that a member points to may be read, and other members be told of it; nothing may be posted to it.
        "*.body": ResultField("link", trusted=True, match=r"(?:https?://|www\.)[^\s<>\"'`\])},]+"),
    }
)

POLICY = Policy(
    tools={
        "get_channels": Meaning(result={"*": ResultField("channel", trusted=True)}),
        "get_users_in_channel": Meaning(result={"*": ResultField("user", trusted=True)}),
        "read_channel_messages": _MESSAGES,
        "read_inbox": _MESSAGES,
        # A message is read before it can be taken back.
        "send_direct_message": Meaning("irreversible", {"recipient": USER}),
        "send_channel_message": Meaning("irreversible", {"channel": CHANNEL}),
        # Who is in a channel reads all of it; only whom the organisation let in can be added, and can be taken out again.
        "add_user_to_channel": Meaning("write", {"user": USER, "channel": CHANNEL}),
        # An invitation goes by mail to an address, and lets a stranger in.
        "invite_user_to_slack": Meaning("irreversible", {"user": Destination("newcomer"), "user_email": EMAIL}),
        # The member's messages go with the member.
        "remove_user_from_slack": Meaning("destructive", {"user": USER}),
        # Whoever answers at a URL learns that it was asked for, and what it holds.
        "get_webpage": Meaning("read", {"url": URL}),
        # What is on a page is public.
        "post_webpage": Meaning("irreversible", {"url": URL}),
    }
)
