"""What leaves and enters the ledger as files: exports, imports, and the close of a month."""
