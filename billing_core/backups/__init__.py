"""Backup and restore: one archive of everything that cannot be read anew from Langfuse or Stripe."""
