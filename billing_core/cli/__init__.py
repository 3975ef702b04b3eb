"""The commands of `python -m billing_core`."""
