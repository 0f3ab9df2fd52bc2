"""The facade: everything a surface (HTTP, CLI, a test) may do with runs, and the only place where all rooms meet."""

from stanchion.broker.delegation import Redirect
from stanchion.engine.deliver import WebhookSettings
from stanchion.engine.live import LiveDelta
from stanchion.runtime.bill import CostQuestion, CostReport
from stanchion.runtime.connecting import ConnectedView, ConnectionView
from stanchion.runtime.deciding import Decision
from stanchion.runtime.facade import Runtime
from stanchion.runtime.files import load_agents
from stanchion.runtime.following import Draining
from stanchion.runtime.forecasting import ForecastQuestion
from stanchion.runtime.keys import Reviewer, reviewer_of
from stanchion.runtime.remembering import FactView, Forgotten, RememberedView
from stanchion.runtime.scheduling import ScheduleView
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
from stanchion.runtime.webhooks import Callback, DeliveryView, EndpointView

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
    "LiveDelta",
    "Precedent",
    "Redirect",
    "RememberedView",
    "Reviewer",
    "RunView",
    "Runtime",
    "ScheduleView",
    "Started",
    "VerifiedRun",
    "Waiting",
    "WebhookSettings",
    "delta_json",
    "entry_json",
    "load_agents",
    "reviewer_of",
]
