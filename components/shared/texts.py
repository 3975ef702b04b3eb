"""Texts that several pages show."""

SEVERAL_VALUES = "Several values in one filter match any of them. You can also type a value that is not listed."
TRY_AGAIN = "Nothing is lost. Try again in a moment; if the problem persists, contact your administrator."
SEARCHED = "Id, user, session, organization, customer, chatflow, model"
MISSING_FIELD = "Events missing this field. With several fields: events missing all of them."
PLAN_BY_PRICE = "By the rate card's list of price ids; unknown if no price of the subscription is on it."
CHOOSE_CUSTOMER = "Choose or type a customer id"
NOT_CONNECTED = "Not connected: set STRIPE_API_KEY."
