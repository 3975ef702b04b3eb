"""Usage on its way to Stripe: pushes, their confirmation, holds and retries, and what Stripe's account looks like."""
