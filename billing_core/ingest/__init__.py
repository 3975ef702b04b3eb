"""One pull: observations are read from Langfuse, rated, and booked in the ledger."""
