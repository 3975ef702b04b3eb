"""Three books side by side: what Langfuse says was used, what the ledger booked and sent, what Stripe counts."""
