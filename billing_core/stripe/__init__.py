"""Stripe: connecting, and the check that the meter is the one credits may go to."""
