"""Questions compiled once per run of the tests: what one process has compiled, the other of pytest-xdist reads.

Ibis takes some 50 ms for each shape of a question, and both processes ask hundreds of the same ones. What is read is
what the program's own compiler made of that shape in this run.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from billing_core.ledger import compiled

_compile = compiled._compile.__wrapped__

folder: Path | None = None
"""Where the processes of this run find each other's; until it is set, each compiles for itself."""


@lru_cache(compiled.SHAPES)
def compiled_in_this_run(build: Callable[..., Any], shape: tuple[Any, ...], dialect: str) -> compiled.Compiled:
    """As the program's own, which is asked for what no process of this run has asked before."""
    if folder is None:
        return _compile(build, shape, dialect)
    name = repr((build.__module__, build.__qualname__, shape, dialect))
    path = folder / hashlib.sha256(name.encode()).hexdigest()
    with suppress(FileNotFoundError):
        return pickle.loads(path.read_bytes())  # noqa: S301 - pickled below
    made = _compile(build, shape, dialect)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_bytes(pickle.dumps(made))
    draft.replace(path)
    return made


compiled._compile = compiled_in_this_run  # before anything takes it by its name
