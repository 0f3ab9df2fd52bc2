"""What every test may rely on: no model key in the environment, and Hypothesis under the suite's own time limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared/data"

# A machine that runs other things beside the tests must not fail them: pytest-timeout is the limit, not a deadline.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# A test never reaches a real model, whatever the machine's environment offers.
for name in [name for name in os.environ if name.endswith(("_API_KEY", "_BASE_URL"))]:
    del os.environ[name]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded exchanges and conversations; a test that needs it is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the shared recordings are not on this machine (../shared/data beside the checkout)")
    return SHARED_DATA
