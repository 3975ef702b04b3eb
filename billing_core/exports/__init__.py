"""Exports: data sets of the ledger as streams of columns, the file formats to write them in, and their service."""
