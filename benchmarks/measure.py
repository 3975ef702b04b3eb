"""Small helpers: percentiles of repeated calls, and the peak memory of a process."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import Any

import psutil


def timed(calls: Iterable[Callable[[], Any]]) -> list[float]:
    """Milliseconds of each call, in order."""
    found = []
    for call in calls:
        began = time.perf_counter()
        call()
        found.append((time.perf_counter() - began) * 1000)
    return found


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the measurements lie."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


class PeakMemory:
    """The largest resident size of this process while running, in MB, sampled every 20 ms."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.megabytes = 0.0

    @contextmanager
    def watched(self) -> Any:
        """Sample until the block ends."""
        done = threading.Event()

        def sample() -> None:
            while not done.wait(0.02):
                self.megabytes = max(self.megabytes, self._process.memory_info().rss / 1e6)

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            done.set()
            thread.join()
