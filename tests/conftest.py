"""What tests of every part share."""

import pytest

from billing_core.sandbox import SandboxProcess


@pytest.fixture(scope="session")
def sandbox():
    """A running sandbox with a small month; read it, do not plant faults in it."""
    with SandboxProcess(events=600, days=20, seed=7) as running:
        yield running
