"""Python imports this at the start of every process that tests start, for its folder stands in PYTHONPATH."""

import tests.fixed_clock  # noqa: F401
