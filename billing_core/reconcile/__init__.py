"""Reconciliation: what Langfuse says was used, what the ledger booked and sent, and what Stripe counts, compared."""
