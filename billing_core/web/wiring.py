"""Everything one process of the dashboard shares: made on first use, for page scripts and HTTP routes.

Nothing is made at import and a failure is not kept, so the process answers `/healthz` whatever is misconfigured,
and recovers as soon as a wrong file is corrected.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Generic, TypeVar

from billing_core.access import Principal, Role
from billing_core.auth.gatekeeper import Gatekeeper
from billing_core.auth.tokens import TokenFile
from billing_core.demo import DEMO_DAYS, DemoSandbox
from billing_core.errors import BillingError, SettingsError
from billing_core.settings import Mode, Settings, load_settings
from billing_core.types import GetUsageEventsParams
from billing_core.web.audit_trail import AuditTrail
from billing_core.web.door import DoorRules
from billing_core.web.live_rules import ServerOptions, check_server
from billing_core.web.sockets import Sockets

if TYPE_CHECKING:
    from billing_core.service import BillingService
    from billing_core.web.export_jobs import ExportJobs
    from billing_core.web.jobs import CloseJob, PlansJob, PullJob, PushJob, ReconcileJob, RerateJob

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Once(Generic[T]):
    """A value made once, by the first caller while the others wait; made again after a failure."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._turn = threading.RLock()
        self._made: list[T] = []

    def __call__(self) -> T:
        if not self._made:
            with self._turn:
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]

    def forget(self) -> T | None:
        """Make the value anew on the next call; returns the one made so far, for its maker to close."""
        with self._turn:
            return self._made.pop() if self._made else None


def _make_service() -> BillingService:
    from billing_core.service import BillingService  # here: it brings the engine, which the form must not wait for

    if settings().mode is Mode.LIVE:
        return BillingService.from_settings(settings())
    return BillingService.from_settings(
        settings(), connect=demo_sandbox().langfuse, connect_stripe=demo_sandbox().stripe
    )


def _jobs() -> ModuleType:
    from billing_core.web import jobs  # here: it brings the service

    return jobs


def _make_export_jobs() -> ExportJobs:
    from billing_core.web.export_jobs import ExportJobs

    return ExportJobs()


def _write_audit(who: str, what: str, detail: str) -> None:
    service().audit(who, what, {"detail": detail})


_server: list[ServerOptions] = []


def serve_with(options: ServerOptions) -> None:
    """Check the settings also against the options of this process's server, from now on."""
    _server[:] = [options]


def _load_settings() -> Settings:
    loaded = load_settings()
    for options in _server:
        check_server(loaded, options)
    return loaded


settings: Once[Settings] = Once(_load_settings)
sockets = Sockets()
service: Once[BillingService] = Once(_make_service)
audit_trail = AuditTrail(_write_audit)
gatekeeper: Once[Gatekeeper] = Once(lambda: Gatekeeper.from_settings(settings(), audit=audit_trail))
tokens: Once[TokenFile] = Once(lambda: TokenFile(settings().api_tokens))
demo_sandbox: Once[DemoSandbox] = Once(DemoSandbox)
pull_job: Once[PullJob] = Once(lambda: _jobs().PullJob())
push_job: Once[PushJob] = Once(lambda: _jobs().PushJob())
plans_job: Once[PlansJob] = Once(lambda: _jobs().PlansJob())
reconcile_job: Once[ReconcileJob] = Once(lambda: _jobs().ReconcileJob())
close_job: Once[CloseJob] = Once(lambda: _jobs().CloseJob())
rerate_job: Once[RerateJob] = Once(lambda: _jobs().RerateJob())
export_jobs: Once[ExportJobs] = Once(_make_export_jobs)


def door_rules() -> DoorRules:
    """The settings of the request check; the strictest while the settings cannot be read."""
    try:
        found = settings()
    except SettingsError:
        return DoorRules()
    return DoorRules(found.public_site, found.trusted_proxies, found.mode is Mode.LIVE)


def principal_of_cookie(cookie: str | None) -> Principal | None:
    """The person the session of a cookie belongs to now; `None` also while nobody could sign in."""
    try:
        session_id = gatekeeper().session_in(cookie)
        return None if session_id is None else gatekeeper().principal(session_id)
    except BillingError:
        return None


def get_ready() -> None:
    """Prepare what the first sign-in need not wait for: imports, the open ledger, the demo's data."""
    try:
        asked = GetUsageEventsParams(limit=1)
        service().check_mode()
        service().get_usage_events(asked, Principal("start-up", Role.ANALYST, frozenset()))
        if settings().mode is Mode.DEMO:
            pull_job().start(service(), Principal("demo", Role.ADMIN), first_days=DEMO_DAYS)
    except BillingError as error:
        _log.warning("not ready: %s", error)


def close() -> None:
    """Close every file: when the process ends, and between tests."""
    audit_trail.drain()
    for job in (pull_job, push_job, plans_job, reconcile_job, close_job, rerate_job):
        job.forget()
    for made in (export_jobs.forget(), gatekeeper.forget(), service.forget(), demo_sandbox.forget()):
        if made is not None:
            made.close()
    settings.forget()
    tokens.forget()


def ready() -> None:
    """Raise the `BillingError` that keeps people from working: settings, sign-in file or warehouse."""
    gatekeeper().check()
    service().ready()
