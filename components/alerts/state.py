"""State of the Alerts page between two runs: which rule's history is shown, and which dialog is open."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from billing_core.alerts.model import Rule
from components.shared.session import Kept
from components.shared.url_codec import Codec, text
from components.shared.url_state import UrlState

SAID = "alerts.said"
"""Session state: what the last action did, to be said once."""

REFUSED = "alerts.refused"
"""Session state: why the open dialog's button did nothing."""


@dataclass(frozen=True)
class AlertsView:
    """The rule whose history is shown; empty: of all."""

    rule: str = ""


URL = UrlState("alerts", Codec(AlertsView(), {"rule": text()}))


class Act(StrEnum):
    """What a dialog is about."""

    ADD = "add"
    EDIT = "edit"
    MUTE = "mute"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class OpenDialog:
    """The dialog that is open, and the rule it is about (`None`: a new one)."""

    act: Act
    rule: Rule | None = None


DIALOG = Kept[OpenDialog]("alerts.dialog")
