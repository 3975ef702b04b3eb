"""Warnings before an import: what people should know about its effects, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from zoneinfo import ZoneInfo

from billing_core.imports.events import ImportComparison, StagedEvents


def warnings_of(
    staged: StagedEvents, found: ImportComparison, zone: ZoneInfo | None, override: str | None
) -> Iterator[str]:
    """Warnings about the effects of an import, in sentences. `override` is the customer that pays for everything, if
    one does.
    """
    if staged.without_offset and zone is not None:
        yield _of(
            staged.without_offset,
            f"1 time has no offset; it is read as {zone.key}, as asked.",
            f"times have no offset; they are read as {zone.key}, as asked.",
        )
    if found.pending:
        waiting = f"{found.pending_credits:,f}".rstrip("0").rstrip(".")
        credits_ = "1 credit" if found.pending_credits == 1 else f"{waiting} credits"
        yield _of(
            found.pending,
            f"1 event with {credits_} is pending in the file and would be sent to Stripe by the next push. Import it "
            "only if nobody else sends it.",
            f"events with {credits_} are pending in the file and would be sent to Stripe by the next push. Import them "
            "only if nobody else sends them.",
        )
    if override is not None and found.pending_elsewhere_paid - {override}:
        yield (
            f"BILLING_OVERRIDE_CUSTOMER_ID bills everything to {override}, but pending events of the file name other "
            "customers: they are sent to those until a pull reads them again."
        )
    if found.lifted:
        yield _of(
            found.lifted,
            "1 event that is not sent here, or whose outcome was not known, was billed according to the file: it "
            "counts as billed elsewhere, and is never sent from here.",
            "events that are not sent here, or whose outcome was not known, were billed according to the file: they "
            "count as billed elsewhere, and are never sent from here.",
        )
    if found.corrected:
        then = (
            "the next push sends Stripe the difference, in whole credits; what is too old or on a final invoice is held"
        )
        yield _of(
            found.corrected,
            f"1 event that was sent from here changes what it costs or which customer is billed: {then}.",
            f"events that were sent from here change what they cost or which customer is billed: {then}.",
        )
    if found.rebilled:
        yield _of(
            found.rebilled,
            "1 event that waits here changes what it costs or which customer is billed: the next push sends it as the "
            "file has it.",
            "events that wait here change what they cost or which customer is billed: the next push sends them as the "
            "file has them.",
        )
    if found.in_closed:
        yield _of(
            found.in_closed,
            "1 new or changed event lies in a closed month: what it changes counts in the open month.",
            "new or changed events lie in closed months: what they change counts in the open month.",
        )


def _of(count: int, one: str, more: str) -> str:
    """A sentence about one, or about more of which it begins with the number."""
    return one if count == 1 else f"{count:,} {more}"
