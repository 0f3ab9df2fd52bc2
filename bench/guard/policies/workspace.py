"""Mail, a calendar and a drive. Ids of one's own records may be trusted; addresses only where the user says them: senders, contacts,
participants and those whom a file is shared with are chosen by others.
"""

from __future__ import annotations

from bench.guard.meaning import DATE, EMAIL, EVENT, FILE, MESSAGE, STORED, Meaning, Policy, ids
from stanchion.core.policy import Bound, ResultField

_MAILS = Meaning(result=ids("message", "*.id_"))
_EVENTS = Meaning(result=ids("event", "*.id_"))
_FILES = Meaning(result=ids("file", "*.id_"))
_CONTACTS = Meaning()
"""The inbox's own list: whoever writes stands in it, by a name of his choice. It tells no stranger from a friend."""

POLICY = Policy(
    tools={
        # Mail leaves the house and cannot be called back.
        "send_email": Meaning(
            "irreversible",
            {"recipients.*": EMAIL, "cc.*": EMAIL, "bcc.*": EMAIL, "attachments.*.file_id": FILE},
            ids("message", "id_"),
        ),
        "delete_email": Meaning("destructive", {"email_id": MESSAGE}),
        "get_unread_emails": _MAILS,
        "get_sent_emails": _MAILS,
        "get_received_emails": _MAILS,
        "get_draft_emails": _MAILS,
        "search_emails": _MAILS,
        "search_contacts_by_name": _CONTACTS,
        "search_contacts_by_email": _CONTACTS,
        # What day it is comes from the calendar itself.
        "get_current_day": Meaning(result={"": ResultField("today", trusted=True)}),
        "search_calendar_events": _EVENTS,
        "get_day_calendar_events": _EVENTS,
        # Participants are sent mail at once. A new appointment moves none that is there, so its time is only what it says.
        "create_calendar_event": Meaning("irreversible", {"participants.*": EMAIL}, ids("event", "id_")),
        # The appointment is lost, and its participants are told so.
        "cancel_calendar_event": Meaning("destructive", {"event_id": EVENT}),
        "reschedule_calendar_event": Meaning(
            "irreversible", {"event_id": EVENT, "new_start_time": DATE, "new_end_time": DATE}
        ),
        "add_calendar_event_participants": Meaning("irreversible", {"event_id": EVENT, "participants.*": EMAIL}),
        # A file may be shared already: what is added to it may be read by others.
        "append_to_file": Meaning("write", {"file_id": FILE}, ids("file", "id_")),
        "search_files_by_filename": _FILES,
        # A new file is the user's alone until it is shared.
        "create_file": Meaning("write", {"filename": STORED, "content": STORED}, ids("file", "id_")),
        "delete_file": Meaning("destructive", {"file_id": FILE}),
        "get_file_by_id": Meaning(result=ids("file", "id_")),
        "list_files": _FILES,
        # Reading is the least that can be given; writing must be asked for.
        "share_file": Meaning(
            "irreversible",
            {
                "file_id": FILE,
                "email": EMAIL,
                "permission": Bound("permission", free=("r",), words={"rw": ("write", "edit", "rw", "read-write")}),
            },
        ),
        "search_files": _FILES,
    }
)
