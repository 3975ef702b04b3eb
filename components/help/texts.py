"""Texts of the help dialog. The terms say what `docs/glossary.md` says; a test compares them."""

from __future__ import annotations

from collections.abc import Mapping

from billing_core.access import Role

ROLES: Mapping[Role, str] = {
    Role.ANALYST: "Analysts see usage events and export them.",
    Role.FINANCE: "Finance also sees Stripe Sync, keeps alerts, exports every data set, closes months, runs what-ifs.",
    Role.ADMIN: "Admins see every page, and may push, import, apply rate cards and read the audit log.",
}

THEME = "Choose System, Light or Dark in the ⋮ menu at the top right of the page."

LINKS = (
    "The address of a page holds its filters, period and sort order: copy it to show a colleague the same view. "
    "The browser's Back undoes the last change."
)

KEYS: Mapping[str, str] = {
    "/": "Go to the page's search box",
    "?": "Show these keys",
    "Tab, Shift + Tab": "Next or previous control",
    "Enter, Space": "Press a button, follow a link, open a list",
    "Arrow keys": "Move in a table, a list, or a row of tabs",
    "Shift + Space": "Select the row of a table that you are in",
    "Ctrl + C": "Copy the selected cells of a table (⌘ + C on a Mac)",
    "Esc": "Close a dialog, a menu or a list",
}

TERMS: Mapping[str, str] = {
    "event, usage event": "one Langfuse trace, rated: who used what, when, for how many credits",
    "credit": "the unit that is billed. The built-in card makes 1 credit worth 0.00004 USD",
    "amount": "US dollars a customer owes for credits: credits × the credit price of the card they were rated with",
    "cost": "US dollars the model providers charged us, as Langfuse knows it; not what the customer pays",
    "margin": "amount minus cost",
    "pending, processed, confirmed, error": (
        "how far an event got: not sent; sent; counted by Stripe; refused or held by a rule"
    ),
    "not yet in Stripe": "credits of events that Stripe has not accepted: pending, sending or in error",
    "unbilled": "used, and not sent to Stripe because no customer is assigned",
    "rounding carried forward": (
        "less than a whole credit per customer, added to their next meter event: Stripe is sent whole credits only"
    ),
    "ledger": "the books: events with every revision, intents, closes, the audit log. DuckDB in a file",
    "manifest": "figures and hashes of a closed month, or of an export's file, by which it can be proven later",
}

DOCUMENTS: Mapping[str, str] = {
    "docs/glossary.md": "every term",
    "docs/units.md": "what each figure means and its unit",
    "docs/organizations.md": "organization statistics, with limits, forecasts and anomalies",
    "docs/stripe.md": "what is sent to Stripe and when",
    "docs/alerts.md": "alerts, and where they are sent",
    "docs/month-end.md": "closing a month",
    "docs/rate-cards.md": "rate cards and what-if",
    "docs/exports.md": "files you can download",
    "docs/import.md": "files you can import",
    "docs/operations.md": "set-up, accounts, HTTP API, backups",
}

WHERE = "The documentation comes with the program, in its folder `docs`. Ask your administrator if you do not have it."
