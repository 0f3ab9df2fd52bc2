"""The facade: everything a surface (HTTP, CLI, a test) may do with runs, and the only place where all rooms meet."""

from stanchion.broker.delegation import Redirect
from stanchion.engine.deliver import WebhookSettings
from stanchion.engine.live import LiveDelta
from stanchion.journal.store import Ledger, RunRow, SessionRow
from stanchion.runtime.capabilities import Reviewer
from stanchion.runtime.desks.connecting import ConnectedView, ConnectionView
from stanchion.runtime.desks.keys import reviewer_of
from stanchion.runtime.desks.remembering import FactView, Forgotten, RememberedView
from stanchion.runtime.desks.scheduling import ScheduleView
from stanchion.runtime.desks.webhooks import DeliveryView, EndpointView
from stanchion.runtime.facade import Runtime
from stanchion.runtime.money.bill import CostQuestion, CostReport
from stanchion.runtime.money.forecasting import ForecastQuestion
from stanchion.runtime.opening.files import load_agents
from stanchion.runtime.operating.moving import Selection
from stanchion.runtime.runs.accepting import Callback
from stanchion.runtime.runs.deciding import Decision
from stanchion.runtime.runs.following import Draining
from stanchion.runtime.shape import (
    Approval,
    ForecastView,
    GrantView,
    Precedent,
    RunView,
    Started,
    VerifiedRun,
    Waiting,
    delta_json,
    entry_json,
)

__all__ = [
    "Approval",
    "Callback",
    "ConnectedView",
    "ConnectionView",
    "CostQuestion",
    "CostReport",
    "Decision",
    "DeliveryView",
    "Draining",
    "EndpointView",
    "FactView",
    "ForecastQuestion",
    "ForecastView",
    "Forgotten",
    "GrantView",
    "Ledger",
    "LiveDelta",
    "Precedent",
    "Redirect",
    "RememberedView",
    "Reviewer",
    "RunRow",
    "RunView",
    "Runtime",
    "ScheduleView",
    "Selection",
    "SessionRow",
    "Started",
    "VerifiedRun",
    "Waiting",
    "WebhookSettings",
    "delta_json",
    "entry_json",
    "load_agents",
    "reviewer_of",
]
