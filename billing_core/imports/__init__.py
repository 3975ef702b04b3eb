"""What enters the ledger from files: reading, checking, a dry run, booking in one transaction, and the way back."""
