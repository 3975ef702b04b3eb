"""A local stand-in for Langfuse and Stripe over HTTP on one port, with seeded data and planted faults.

Demo mode, tests and benchmarks use it through the same clients and the same wire as the real services.
"""
