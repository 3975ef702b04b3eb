"""Colours and what they mean. Chart colours follow Okabe and Ito, which people with any colour vision tell apart.

Light and dark themes need different shades of the same hue, so every meaning has a pair.
"""

from __future__ import annotations

from dataclasses import dataclass

from billing_core.types import PipelineStage, SyncStatus


@dataclass(frozen=True, slots=True)
class Shade:
    """One hue for light and for dark backgrounds."""

    light: str
    dark: str

    def on(self, theme: str) -> str:
        """The colour for the theme `light` or `dark`."""
        return self.dark if theme == "dark" else self.light


@dataclass(frozen=True, slots=True)
class CreditPart:
    """A type of credits: its name in `Credits`, its label, its colour."""

    field: str
    label: str
    shade: Shade


CREDIT_PARTS = (
    CreditPart("ai_tokens", "AI tokens", Shade("#0072B2", "#56B4E9")),
    CreditPart("compute", "Compute", Shade("#C98300", "#E69F00")),
    CreditPart("storage", "Storage", Shade("#009E73", "#1FB58A")),
)
"""In the order they are stacked, listed and added everywhere."""

RANKED = Shade("#6B7785", "#A3AEBA")
"""What has no kind of its own: "all others", areas that only carry a size."""

SERIES = (
    Shade("#0072B2", "#56B4E9"),
    Shade("#C98300", "#E69F00"),
    Shade("#009E73", "#1FB58A"),
    Shade("#CC79A7", "#DE94BD"),
    Shade("#3399D6", "#3D84C6"),
    Shade("#D55E00", "#EE7D3B"),
    Shade("#9A8D00", "#F0E442"),
    Shade("#7A5C3E", "#C8A27C"),
)
"""What has a name but no kind, in the order of size: organizations beside each other."""

HEAT = (
    ((0.0, "#EEF3F7"), (0.35, "#9CC4E0"), (0.7, "#2F86BF"), (1.0, "#003F66")),
    ((0.0, "#1A232D"), (0.35, "#1F4E73"), (0.7, "#3F92C9"), (1.0, "#BFE3F9")),
)
"""Little to much, for light and dark: one hue whose lightness alone carries the value."""


@dataclass(frozen=True, slots=True)
class StatusMark:
    """Icon and label of a sync status together, so that colour never carries it alone.

    White text on `colour` reaches 4.5 : 1 (WCAG AA).
    """

    icon: str
    word: str
    colour: str
    meaning: str

    @property
    def text(self) -> str:
        """Icon and label of the sync status."""
        return f"{self.icon} {self.word}"


STATUS_MARKS: dict[SyncStatus, StatusMark] = {
    SyncStatus.PENDING: StatusMark("○", "pending", "#8A5A00", "Not sent to Stripe yet."),
    SyncStatus.SENDING: StatusMark("↑", "sending", "#0B5CAD", "On its way; Stripe's answer is not known yet."),
    SyncStatus.PROCESSED: StatusMark("✓", "processed", "#1A6E37", "Accepted by Stripe."),
    SyncStatus.CONFIRMED: StatusMark("✓✓", "confirmed", "#0F5C56", "Accepted, and Stripe's own summary agrees."),
    SyncStatus.ERROR: StatusMark("✕", "error", "#B3261E", "Rejected, or cannot be sent; the error says why."),
    SyncStatus.EXCLUDED: StatusMark("–", "excluded", "#57606A", "Nothing to bill; a flag says why."),
}

STAGE_MARKS: dict[PipelineStage, StatusMark] = {
    PipelineStage.PENDING: STATUS_MARKS[SyncStatus.PENDING],
    PipelineStage.SENDING: STATUS_MARKS[SyncStatus.SENDING],
    PipelineStage.PROCESSED: STATUS_MARKS[SyncStatus.PROCESSED],
    PipelineStage.CONFIRMED: STATUS_MARKS[SyncStatus.CONFIRMED],
    PipelineStage.ERROR: StatusMark(
        "✕",
        "error",
        "#B3261E",
        "Stripe rejected it, or it cannot be sent and no push has held it yet; “Needs action now” says why.",
    ),
    PipelineStage.HELD: StatusMark(
        "‖", "held", "#7A4B9D", "Held back by a rule or a person; “Needs action now” says why."
    ),
    PipelineStage.EXCLUDED: STATUS_MARKS[SyncStatus.EXCLUDED],
    PipelineStage.BILLED_BEFORE: StatusMark(
        "◂", "billed before", "#57606A", "An earlier system billed it; nothing is sent for it from here."
    ),
    PipelineStage.SETTLED: StatusMark(
        "▪", "settled", "#4B5563", "Written off, or invoiced separately: no meter event is sent for it."
    ),
}
"""In the order an event goes through them."""
