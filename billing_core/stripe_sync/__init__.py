"""Usage on its way to Stripe: pushes, confirmation, holds, retries, the cached state of its account."""
