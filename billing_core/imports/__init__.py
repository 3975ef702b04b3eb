"""Imports: files read and checked, a dry run, booking in one transaction, and undo."""
