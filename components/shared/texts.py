"""Texts that several pages show."""

PLAN_BY_PRICE = "By the rate card's list of price ids; unknown if no price of the subscription is on it."
CHOOSE_CUSTOMER = "Choose or type a customer id"
NOT_CONNECTED = "Not connected: set STRIPE_API_KEY."
