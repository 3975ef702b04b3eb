"""What tests of every part share."""

import gc
import os
import shutil
from contextlib import suppress
from functools import cache
from io import StringIO
from pathlib import Path

import duckdb
import pytest

from billing_core.errors import BillingError
from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.sandbox.server import SandboxProcess
from tests import (
    examples,  # noqa: F401 - loads the profile of Hypothesis
    fixed_clock,  # noqa: F401 - sets the clock before anything looks at it
    shared_shapes,
)

gc.set_threshold(50_000, 20, 20)  # walking over all modules and tests while they come took a third of their time
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - pytest makes a folder of its own in it
ROOM_IN_MEMORY = 4 << 30
"""Bytes. What passing tests leave is deleted at once, so a run takes a tenth of this."""

if IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free >= ROOM_IN_MEMORY:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))  # each commit of a ledger waits for its disk

UNSTEADY = ("frozenset(", " at 0x")
"""What differs from process to process where it stands in the name of a test."""


def pytest_collection_modifyitems(items):
    """Names of tests are the same in every process, else pytest-xdist runs none of them, now and then."""
    for item in items:
        if any(text in item.nodeid for text in UNSTEADY):
            raise pytest.UsageError(
                f"{item.nodeid}: name its parameters with ids=; this name changes with each process"
            )


def pytest_collection_finish():
    """What the imports left stays for the whole run: the collector need not walk over it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def shapes_of_this_run(tmp_path_factory):
    """Where the processes of this run keep the SQL of questions; see `shared_shapes`."""
    own = tmp_path_factory.getbasetemp()
    shared_shapes.folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shapes"
    shared_shapes.folder.mkdir(exist_ok=True)


@pytest.fixture(scope="session")
def engines_made():
    """Engines of ledgers that the test which runs has made."""
    made = []
    make = DuckDBEngine.__init__

    def remembered(self, *arguments, **options):
        make(self, *arguments, **options)
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DuckDBEngine, "__init__", remembered)
        yield made


@pytest.fixture(autouse=True)
def ledgers_let_go(engines_made):
    """A ledger that a test leaves open would hold its memory till the end of the run; used again, it opens again."""
    yield
    for engine in engines_made:
        if not engine._lease._users:  # else it is closed by whoever uses it, or never
            with suppress(BillingError, duckdb.Error, OSError):  # its folder may be gone
                if engine._connection is not None:  # nobody reads on: its log may stay beside it
                    engine._connection.execute("PRAGMA disable_checkpoint_on_shutdown")
                engine.close()
    engines_made.clear()


@pytest.fixture(scope="session")
def packages_scanned_once():
    """For tests that run a script of Streamlit: each would read what every installed package says of itself."""
    from streamlit.components.v2 import manifest_scanner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture(scope="session")
def sandbox():
    """A running sandbox with a small month; read it, do not plant faults in it."""
    with SandboxProcess(events=600, days=20, seed=7) as running:
        yield running


@pytest.fixture(scope="session")
def stripe_server():
    """The sandbox's Stripe face in a thread, for those that hold its clock; `stripe` is it as new."""
    from tests.stripe_sync.push_world import running_stripe

    with running_stripe() as running:
        yield running


@pytest.fixture
def stripe(stripe_server):
    """An account with three customers and no meter event yet."""
    stripe_server.reset()
    return stripe_server


@pytest.fixture
def world(tmp_path, stripe):
    """A service over an empty ledger, connected to `stripe`, on its clock."""
    from tests.stripe_sync.push_world import World

    world = World(tmp_path, stripe)
    yield world
    world.close()


@pytest.fixture
def run_command(tmp_path, monkeypatch, capsys):
    """Commands in this process, in an environment of their own: (exit code, standard output, standard error).

    Stripe's answers are not waited for. The key is in neither output.
    """
    from billing_core.cli.main import main
    from billing_core.sandbox.data.catalog import STRIPE_KEY
    from billing_core.stripe.provider import StripeProvider
    from tests.stripe.fake import QUICK

    for name in list(os.environ):
        if name.startswith(("LANGFUSE", "BILLING", "STRIPE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    connect = "billing_core.stripe_sync.service.connect_stripe"
    monkeypatch.setattr(connect, lambda settings, clock: StripeProvider.from_settings(settings, QUICK, clock))

    def run(environment, *words, stdin=""):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr("sys.stdin", StringIO(stdin))
            code = main(words)
        out, err = capsys.readouterr()
        assert STRIPE_KEY not in out
        assert STRIPE_KEY not in err
        return code, out, err

    return run
