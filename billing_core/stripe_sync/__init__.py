"""Usage on its way to Stripe: pushes, their confirmation, holds and retries, and the cached state of Stripe's
account.
"""
