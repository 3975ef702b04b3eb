"""A failure inside the server: the fault layer plants it, the face that serves the request knows what it entails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Planted:
    """The answer to give in place of the true one, after the work is done (`works`) or without doing it.

    Stripe keeps such an answer under the request's Idempotency-Key, which no layer around it could do.
    """

    KEY: ClassVar[str] = "planted_answer"
    """Where it lies in the ASGI scope."""

    status: int
    body: bytes
    works: bool
