"""State of the export panel: on its page in the URL, in the dialog of other pages in the session."""

from __future__ import annotations

from enum import StrEnum

from components.exports.query import CODEC
from components.shared.session import Kept
from components.shared.url_state import UrlState
from components.usage_events import state as usage_events
from components.usage_events.query import Filters, as_changes

OPEN = Kept[bool]("export.open")
"""Whether the dialog is open; its choices are there again the next time."""

JOB = Kept[str]("export.job")
"""The id of the export this session started last, until it is dismissed."""


class Place(StrEnum):
    """Where an export panel is shown, on its page or as a dialog; part of the keys of its widgets."""

    PAGE = "page"
    DIALOG = "dialog"


STATES = {
    Place.PAGE: UrlState("export-page", CODEC),
    Place.DIALOG: UrlState("export-dialog", CODEC, kept="export.choice"),
}
"""Everything chosen so far in the panel at a place. The address of a page that has the dialog is its own."""


# ── the dialog ───────────────────────────────────────────────────────────────────────────────────


def open_dialog() -> None:
    """Open the export dialog with the next run; on the Usage Events page it takes over what that page shows."""
    OPEN.put(True)
    filters = usage_events.URL.current() if usage_events.URL.is_drawn("period") else Filters()
    STATES[Place.DIALOG].change(**as_changes(filters))
