"""The agent of the fleet as the command line loads it: that of the kill sweep, with money for a hundred kills.

Every attempt at a model call that a kill cut off is billed at its reservation, and a run of the fleet lives through many.
"""

from __future__ import annotations

import dataclasses

from stanchion import Limits
from tests.chaos.agent import make_agent

agent = dataclasses.replace(make_agent()[0], limits=Limits(usd="1000.00", turns=1000))
