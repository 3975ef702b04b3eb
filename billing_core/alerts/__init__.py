"""Alerts: rules kept in the ledger, what they found, and how it reached people."""
