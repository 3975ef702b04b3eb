"""Views of the dashboard's pages that people saved, and on which of them it opens; every change is audited."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from billing_core.access import Role
from billing_core.ledger.engine import Engine
from billing_core.ledger.journal import append_audit


@dataclass(frozen=True, slots=True)
class SavedView:
    """A page as somebody filtered and sorted it. Each person's names are unique within a page.

    query: URL parameters of the page, percent-encoded.
    shared_with: The role that may open it too; `None`: its owner only.
    """

    id: str
    owner: str
    name: str
    page: str
    query: str
    shared_with: Role | None
    changed_at: datetime


class SavedViewStore:
    """The tables `saved_views` and `start_views`; callers decide who may see what."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> list[SavedView]:
        """Every saved view, whoever may open it."""
        rows = "SELECT id, owner, name, page, query, shared_with, changed_at FROM saved_views"
        return [
            SavedView(id_, owner, name, page, query, None if role is None else Role(role), at.replace(tzinfo=UTC))
            for id_, owner, name, page, query, role, at in self._engine.rows(rows)
        ]

    def put(self, view: SavedView, *, most: int) -> SavedView | None:
        """Save a view in place of the one its owner gave that name on that page, whose id it takes; `None` if the owner
        has `most` others already.
        """
        with self._engine.transaction() as writer:
            same = "owner = ? AND page = ? AND name = ?"
            values = [view.owner, view.page, view.name]
            earlier = writer.rows(f"SELECT id FROM saved_views WHERE {same}", values)
            if earlier:
                view = replace(view, id=earlier[0][0])
                writer.rows(f"DELETE FROM saved_views WHERE {same}", values)
            elif writer.rows("SELECT count(*) FROM saved_views WHERE owner = ?", [view.owner])[0][0] >= most:
                return None
            row = {"id": view.id, "owner": view.owner, "name": view.name, "page": view.page, "query": view.query}
            detail = {"shared_with": view.shared_with, "changed_at": view.changed_at}
            writer.insert("saved_views", {**row, **detail})
            append_audit(writer, view.owner, "view_saved", {**row, "shared_with": view.shared_with})
        return view

    def remove(self, view_id: str, *, actor: str) -> None:
        """Delete a view; nothing if it is gone already. Whose dashboard opened on it starts on Usage Events again."""
        with self._engine.transaction() as writer:
            found = writer.rows("SELECT owner, name, page FROM saved_views WHERE id = ?", [view_id])
            for owner, name, page in found:
                writer.rows("DELETE FROM saved_views WHERE id = ?", [view_id])
                writer.rows("DELETE FROM start_views WHERE view_id = ?", [view_id])
                append_audit(writer, actor, "view_deleted", {"id": view_id, "owner": owner, "name": name, "page": page})

    def start_of(self, person: str) -> str | None:
        """The id of the view on which the dashboard opens for a person."""
        found = self._engine.rows("SELECT view_id FROM start_views WHERE person = ?", [person])
        return found[0][0] if found else None

    def set_start(self, person: str, view_id: str | None) -> None:
        """Choose the view on which the dashboard opens for a person; `None`: none."""
        if self.start_of(person) == view_id:
            return
        with self._engine.transaction() as writer:
            writer.rows("DELETE FROM start_views WHERE person = ?", [person])
            if view_id is not None:
                writer.insert("start_views", {"person": person, "view_id": view_id})
            append_audit(writer, person, "start_view_chosen", {"id": view_id})
