"""A local stand-in for Langfuse and Stripe over HTTP on one port, with seeded data and planted faults.

Demo mode, tests and benchmarks use it through the same clients and the same wire as the real services.
"""

from __future__ import annotations

from billing_core.sandbox.app import create_app
from billing_core.sandbox.data.dataset import SandboxDataset
from billing_core.sandbox.data.plan import ExpectedEvent, Oddity
from billing_core.sandbox.http import ApiGeneration
from billing_core.sandbox.server import SandboxProcess, environment_for, run_command, serve

__all__ = [
    "ApiGeneration",
    "ExpectedEvent",
    "Oddity",
    "SandboxDataset",
    "SandboxProcess",
    "create_app",
    "environment_for",
    "run_command",
    "serve",
]
