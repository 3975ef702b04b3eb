"""Texts of the Organization Stats page that have no values in them."""

ANOMALIES_NOTE = (
    "The usual range of a day comes from the same weekday of the 8 weeks before (from the last 28 days while there "
    "are fewer than 4 of them): the median, give or take the largest of 3.5 robust standard deviations, a quarter of "
    "the median and 1,000 credits. The deviation is the distance from the median."
)
SPLIT_NOTE = (
    "Volume: more or fewer events. Price: the same kind of event cost more or less (tokens, latency, rate card). "
    "Mix: other chatflows or models than usual. They add up to the difference from the average of the compared days."
)
PERIODS_NOTE = "The whole period compared with up to 4 previous periods of equal length, by the same rule as for days."
NOTHING_UNUSUAL = "Every assessed day is within its usual range."
NONE_IN_SELECTION = "No unusual days in this selection. Choose All to see every one."
ANOMALIES_HINT = "Select rows to read what happened, to go to their events, and to mark them as seen."
ANOMALIES_CSV_NOTE = "Every anomaly with exact figures, seen or not."
MARK_NOTE = "Shown with the mark and recorded in the audit log."
NO_EVENTS_OF_THESE = "No usage events of these organizations in this period."
OPEN_HINT = "Click a bar to open its organization."
TREEMAP_HINT = "Click an area to drill down as far as its models; the bar above leads back."
USER_HINT = "Click a bar to see that user's events."
ACTIVE_USERS_HINT = "Click a day to see its events. The same user id in two organizations counts as two users."
DIRECTORY_NOTE = (
    "An event is billed to the customer its trace names; if it names none, to the customer its organization is "
    "mapped to here; otherwise to the default customer. Usage already sent stays with the customer it was sent to."
)
NOT_FOUND = "No organization matches this search."
NOTHING_CHANGED = "Nothing has changed yet."
DIRECTORY_READ_ONLY = "Read-only: customers are assigned by admins who can see every organization."
DIRECTORY_CSV_NOTE = "The whole map, in the format the upload reads."
BILLED_FOR = "Billed for this organization's events that name no customer. "
NO_HISTORY = "Nobody has changed anything yet."
CUSTOMERS_NEVER_READ = "Stripe's customers have not been read yet; the view Plans and limits reads them."
UPLOAD_NOTE = (
    "A CSV with the columns organization_id, name and customer_id; one of the last two may be missing. An empty cell "
    "leaves the value as it is, a single - clears it. The download above has this format."
)
FORECAST_NOTE = (
    "A thousand futures are simulated from past days. The expected total is their median; the interval leaves out "
    "the lowest and the highest tenth. Plans people have are not taken into account."
)
USED_NOTE = "Credits of the period so far, exact."
RUNS_OUT_NOTE = "The day on which half of the simulated futures have used up what the plan includes."
BACK_TEST_NOTE = "Each of the last weeks is forecast from the days before it and compared with actual usage."
BULLET_LEGEND = (
    "Bar: used, its part over the plan in orange. Solid line: the plan. Dotted lines: thresholds of notices."
)
NO_CUSTOMER_KNOWN = (
    "No Stripe customer is known for this organization: no event within 90 days names one, and the directory has none."
)
PERIOD_NOTE = "The subscription's current period, not the calendar month."
SHARE_NOTE = "Percent of the credits included, cut to two decimals."
PACE_NOTE = "If it goes on as on average so far."
EXPECTED_NOTE = "Credits at the period's end, with the 80 % interval."
RUNS_OUT_COLUMN = "When the included credits are used up."
ERROR_COLUMN = "How far forecasts of past weeks were off, on average."
CUSTOMERS_EVENTS = "The customer's usage events of the period."
OWN_PAGE = "The organization's own page."
READING_PLANS = ":material/sync: Reading plans from Stripe…"
NO_LIMITS = "No organization has had an event in the last 90 days or is in the directory."
LIMITS_CSV_NOTE = "All rows with exact figures, whatever the search."
RELATIVE_NOTE = (
    "Percentage changes are listed for organizations that had at least 1 % of all credits, or 1,000 credits, in the "
    "previous period."
)
NO_MOVERS = "No organization's credits changed from the previous period."
NO_THRESHOLD = "No threshold has been reached in the current periods."
SELECT_NOTICES = "Select notices in the table first."
NOTICES_CSV_NOTE = "Every notice, open and seen, with exact figures."
NO_EVENTS_IN_PERIOD = "No usage events in this period. Choose a longer one, or refresh from Langfuse."
QUIET = "It had no events in this period or the previous one."
EVENTS_HINT = "Click a bar to see its events."
MODELS_HINT = "Sets of models that traces used together. Click a bar of a single model to see its events."
BECAME_INACTIVE = "It became inactive: it had events in the previous period, but none in this one."
DAY_HINT = "Click a bar to see its day's events."
INVOICES_LIMITED = (
    "Invoices belong to customers, not organizations; only accounts that see all organizations can view them."
)
NO_STRIPE_CUSTOMER = "No event of this period names a Stripe customer."
NOT_BILLED = "Not billed to any customer in this period."
SHARE_OF_ALL = "Share of all organizations' credits."
PER_DAY = "Over the days of the period."
CHANGE_NOTE = "In credits, compared with the previous period of equal length."
CUSTOMERS_NOTE = "Stripe customers that the organization's events are billed to; sorted by how many there are."
TABLE_CSV_NOTE = "Every row of this table with exact figures, in this order."
