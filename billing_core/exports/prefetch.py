"""Runs a few calls ahead in threads and gives their results in order. Arrow and the engine let others run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

WORKERS = 2
"""Answers that are made at a time; each may hold a slice in memory, so more would cost more of it."""

T = TypeVar("T")


def ahead(calls: Iterable[Callable[[], T]], workers: int = WORKERS) -> Iterator[T]:
    """The results of `calls` in order; never more than `workers` of them are started before they are asked for.

    An error comes where its answer would have; what was begun after it is waited for and forgotten.
    """
    remaining = iter(calls)
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="export") as pool:
        coming: deque[Future[T]] = deque(pool.submit(call) for call in islice(remaining, workers))
        while coming:
            answer = coming.popleft().result()
            coming.extend(pool.submit(call) for call in islice(remaining, 1))
            yield answer
