"""Labels and icons of the Stripe Sync page: stages, causes, outcomes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from billing_core.stripe_sync.pipeline import Action
from billing_core.types import PipelineStage
from components.shared.colours import Shade

STAGE_SHADES: dict[PipelineStage, Shade] = {
    PipelineStage.PENDING: Shade("#C98300", "#E69F00"),
    PipelineStage.SENDING: Shade("#0072B2", "#56B4E9"),
    PipelineStage.PROCESSED: Shade("#009E73", "#1FB58A"),
    PipelineStage.CONFIRMED: Shade("#0B6B62", "#0E8F83"),
    PipelineStage.ERROR: Shade("#C23B22", "#EE6B4D"),
    PipelineStage.HELD: Shade("#8A5BB0", "#B58BD6"),
    PipelineStage.EXCLUDED: Shade("#8A94A0", "#7D8894"),
    PipelineStage.BILLED_BEFORE: Shade("#B9A98C", "#8F8064"),
    PipelineStage.SETTLED: Shade("#5E7F9E", "#8FAFCB"),
}
"""Of areas in charts; the tiles beside them name every figure, so that no colour carries it alone."""


@dataclass(frozen=True, slots=True)
class ActionWords:
    """An action's label on a button, its past tense, and its effect."""

    verb: str
    done: str
    effect: str
    icon: str


ACTION_WORDS: dict[Action, ActionWords] = {
    Action.RETRY: ActionWords(
        "Retry", "pending again", "They become pending; the next push sends what the rules allow.", ":material/replay:"
    ),
    Action.HOLD: ActionWords("Hold", "on hold", "No push sends them until somebody releases them.", ":material/pause:"),
    Action.RELEASE: ActionWords(
        "Release", "released", "The next push sends them, if the rules allow.", ":material/play_arrow:"
    ),
}


@dataclass(frozen=True, slots=True)
class CauseWords:
    """A cause of a difference between two sources: its label and what it means."""

    label: str
    meaning: str


CAUSE_WORDS: dict[str, CauseWords] = {
    "late": CauseWords("Late", "Used, but not yet in the ledger or not yet sent; the next pull and push bring it in."),
    "changed_after_sending": CauseWords("Changed after sending", "It changed after it was sent; a correction is due."),
    "policy_differs": CauseWords(
        "Policy differs", "It was sent under other settings and stays as sent: `rerate --settings` shows it."
    ),
    "written_off": CauseWords("Written off", "It could not be metered any more and was written off."),
    "invoiced_separately": CauseWords(
        "Invoiced separately", "It could not be metered any more: an invoice item of its own bills it."
    ),
    "no_customer": CauseWords("No customer", "No customer is named, so nobody can be billed."),
    "held": CauseWords("Held", "Held back by a rule or a person."),
    "too_old": CauseWords("Too old", "Older than the 35 days Stripe accepts."),
    "rejected": CauseWords("Rejected", "Stripe refused it."),
    "unknown_outcome": CauseWords("Unknown outcome", "Sending was tried but no answer came; the next push finds out."),
    "carried_fraction": CauseWords(
        "Rounding carried forward", "Less than a whole credit, carried forward to the customer's next meter event."
    ),
    "summary_lag": CauseWords("Summary lag", "Accepted less than an hour ago; Stripe's summaries follow later."),
    "sent_elsewhere": CauseWords(
        "Sent elsewhere",
        "Stripe's count differs from what this ledger sent; usage that another copy may have sent is held back.",
    ),
    "missing_at_source": CauseWords(
        "Missing at Langfuse", "Langfuse no longer has the trace: deleted, or past its retention. The ledger keeps it."
    ),
    "excluded": CauseWords("Excluded", "An environment that is not billed, or nothing that costs credits."),
    "unpriced": CauseWords("Unpriced", "The rate card has no price for it."),
    "legacy_billed": CauseWords("Billed earlier", "The earlier system billed it; it is never sent again."),
    "not_ours": CauseWords(
        "Not ours", "Stripe counts more than was sent from here: another system sends to this meter."
    ),
    "lost_at_stripe": CauseWords("Lost at Stripe", "Accepted more than an hour ago, but Stripe does not count it."),
    "contradiction": CauseWords("Contradiction", "The ledger's own records do not agree with each other."),
}
"""The closed list of CONTRACT section 4, and the ledger's own contradictions."""


def cause_words(name: str) -> CauseWords:
    """The label and meaning of a cause, also as a step of a waterfall names it (`late +`, `late −`)."""
    bare = name.rstrip("+−").strip()
    words = CAUSE_WORDS.get(bare, CauseWords(bare.replace("_", " ").capitalize(), ""))
    return words if bare == name.strip() else CauseWords(f"{words.label} ({name.strip()[-1]})", words.meaning)
