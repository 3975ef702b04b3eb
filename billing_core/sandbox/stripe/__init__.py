"""The sandbox's Stripe: an account, its meters, subscriptions and invoices."""
