"""Texts of the Usage Events page."""

DAY_HINT = "Click a bar to see its day."
BAR_HINT = "Click a bar to filter by it."
NO_METADATA = "The trace has no metadata."
CORRECT_THE_FILTER = "Correct the filter, or start over."
AMOUNT_EXAMPLE = "A number of US dollars, for example 0.05"
NEVER_READ = "Langfuse has not been read yet"
INCOMPLETE = "Data is partial: the last read of Langfuse was not complete. Refresh to try again."
READ = "Langfuse has been read."
PULLING = "A pull is running. Data is partial until it is done."
CSV_NOTE = "All events matching this filter with exact figures, in time order."
NEW_EVENTS = "New events have arrived since this view was opened."
COSTS_HIDDEN = "Your account does not show costs or margins. The view is shown without them."
COSTS_NOT_EXPLORED = "Your account does not show costs or margins. Choose another figure above."
NO_EVENTS_YET = "No usage events yet. Figures appear here as soon as the first are read."
NO_EVENTS_REFRESH = (
    "No usage events yet. Press “Refresh from Langfuse” to read the last 30 days, or run `python -m billing_core "
    "pull` on the server."
)
NOTHING_FOUND = "No usage events match this filter."
EXPLORE_CLICK = "Click a bar or a point to see its events."
NO_LINK_REST = "The rest below the top has no link to its events: no filter selects them. Choose a larger top."
NO_LINK_OF_CLASS = "Token classes have no link to events: nearly every event has tokens of several classes."
NO_LINK_NO_MODEL = (
    "“no model” has no link to events: compute, storage and usage that names no model are parts of nearly all. "
    "Then by credit type, compute and storage have one."
)
NO_LINK_BOTH = "Some groups have no link: their events are those with this value and with one of the filter."
EXPLORE_CSV_HELP = "These groups with exact figures."
NOT_ADDITIVE = {
    "events": "An event counts for each model it used, so the groups add up to more.",
    "users": "A user counts in each group they used, so the groups add up to more.",
    "latency": "Averages do not add up.",
}
"""Why the groups of a metric do not add up to its total."""
CAUSE = "Why events are not in Stripe, as Stripe Sync names it."
HELD = "Whether a rule or a person keeps events back from Stripe."
STAGE = "How far events got on their way to Stripe, as Stripe Sync counts them."
WHAT_WAS_USED = "What was used"
WHAT_IT_COSTS = "What it costs"
WHERE_IT_IS = "Where it is"
EVERY_STEP = "Every step and the raw form"
