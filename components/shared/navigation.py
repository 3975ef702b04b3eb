"""The pages of the dashboard: name, section, and the roles each one serves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from billing_core.access import Role


class Section(StrEnum):
    """A heading of the sidebar; the value is its text."""

    USAGE = "Usage"
    BILLING = "Billing"
    DATA = "Data"
    ADMIN = "Admin"


@dataclass(frozen=True, slots=True)
class Destination:
    """A page: its file in `pages/`, its name in the sidebar, as title and in the browser's tab, and what it is for.

    `roles` decide who is shown a link; every page guards itself, and `billing_core` every row.
    """

    file: str
    title: str
    icon: str
    section: Section
    roles: frozenset[Role]
    purpose: str


EVERYBODY = frozenset(Role)
FINANCE = frozenset({Role.ADMIN, Role.FINANCE})
ADMINS = frozenset({Role.ADMIN})

USAGE_EVENTS = Destination(
    "usage_events.py",
    "Usage Events",
    ":material/assessment:",
    Section.USAGE,
    EVERYBODY,
    "Every usage event with its credits, amount and status. Select one to see how its credits were calculated.",
)
ORGANIZATION_STATS = Destination(
    "organization_stats.py",
    "Organization Stats",
    ":material/apartment:",
    Section.USAGE,
    ADMINS,
    "Usage, amount, cost and margin by organization; plans and limits, forecasts, anomalies, names and customers.",
)
STRIPE_SYNC = Destination(
    "stripe_sync.py",
    "Stripe Sync",
    ":material/sync_alt:",
    Section.BILLING,
    FINANCE,
    "What has reached Stripe and what has not, why, and whether Langfuse, the ledger and Stripe agree.",
)
MONTH_CLOSE = Destination(
    "month_close.py",
    "Month close",
    ":material/event_available:",
    Section.BILLING,
    FINANCE,
    "Check a month, close it, and verify later that nothing has changed since.",
)
WHAT_IF = Destination(
    "what_if.py",
    "What-if",
    ":material/price_change:",
    Section.BILLING,
    FINANCE,
    "What past usage would have cost under another rate card. Admins can apply the differences.",
)
ALERTS = Destination(
    "alerts.py",
    "Alerts",
    ":material/notifications:",
    Section.BILLING,
    FINANCE,
    "Rules that alert people by mail, chat or webhook when usage or money needs attention, and their history.",
)
EXPORT_IMPORT = Destination(
    "export_import.py",
    "Export and import",
    ":material/import_export:",
    Section.DATA,
    EVERYBODY,
    "Download usage and accounting files; admins can import usage, rate cards and customers, and undo an import.",
)
AUDIT_LOG = Destination(
    "audit_log.py",
    "Audit log",
    ":material/history:",
    Section.ADMIN,
    ADMINS,
    "Who did what and when. Entries are chained, so a changed or missing one is found.",
)

DESTINATIONS = (USAGE_EVENTS, ORGANIZATION_STATS, STRIPE_SYNC, MONTH_CLOSE, WHAT_IF, ALERTS, EXPORT_IMPORT, AUDIT_LOG)
"""All pages, in the order of the sidebar; the first one is the start page."""


def offered_to(role: Role) -> tuple[Destination, ...]:
    """The pages that serve a role, in the order of the sidebar."""
    return tuple(one for one in DESTINATIONS if role in one.roles)
