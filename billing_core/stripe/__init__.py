"""The connection to Stripe: its account, its meter, and sending meter events."""
