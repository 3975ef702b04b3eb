"""What leaves the ledger as files: data sets as streams of columns, forms to write them in, and their service."""
