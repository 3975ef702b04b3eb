"""Saved views: a page as somebody filtered and sorted it, by name, for themselves or for a role."""
