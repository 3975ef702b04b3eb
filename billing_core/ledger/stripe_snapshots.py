"""What was read from Stripe last, as JSON text: the table `stripe_objects`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from billing_core.ledger.engine import Engine
from billing_core.ledger.schema import times, utc


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object read from Stripe, as JSON text, and when it was read."""

    id: str
    customer_id: str | None
    content: str
    read_at: datetime


class StripeSnapshots:
    """Objects read from Stripe, stored in the ledger; over the same engine as `Ledger`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def store(self, kind: str, objects: Iterable[StoredObject], *, only_customer: str | None = None) -> None:
        """Replace all stored objects of a kind (of one customer) by those just read from Stripe."""
        rows = list(objects)
        with self.engine.transaction() as writer:
            if only_customer is None:
                writer.rows("DELETE FROM stripe_objects WHERE kind = ?", [kind])
            else:
                writer.rows("DELETE FROM stripe_objects WHERE kind = ? AND customer_id = ?", [kind, only_customer])
            if rows:
                table = {
                    "kind": pa.array([kind] * len(rows)),
                    "id": pa.array([row.id for row in rows], pa.string()),
                    "customer_id": pa.array([row.customer_id for row in rows], pa.string()),
                    "content": pa.array([row.content for row in rows], pa.string()),
                    "read_at": times([row.read_at for row in rows]),
                }
                writer.append("stripe_objects", pa.table(table))

    def read(self, kind: str, customer_id: str | None = None) -> list[StoredObject]:
        """The objects of a kind that were read from Stripe last (of one customer)."""
        query = "SELECT id, customer_id, content, read_at FROM stripe_objects WHERE kind = ?"
        values = [kind]
        if customer_id is not None:
            query, values = f"{query} AND customer_id = ?", [kind, customer_id]
        return [StoredObject(row[0], row[1], row[2], utc(row[3])) for row in self.engine.rows(query, values)]
