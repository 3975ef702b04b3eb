"""What people can do with saved views: name one, share it with a role, open the dashboard on it. Part of
`BillingService`.

A view is a page and its URL parameters. It holds no figures: whoever opens it sees what their account may see.
"""

from __future__ import annotations

import re
import uuid

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, BadParameter, NotFound
from billing_core.ledger.journal import Ledger
from billing_core.ledger.saved_views import SavedView, SavedViewStore
from billing_core.runtime.clock import Clock

NAME_CHARACTERS = 60
QUERY_CHARACTERS = 100_000
VIEWS_PER_PERSON = 200

_PAGE = re.compile(r"[a-z_]{1,40}")


class SavedViewService:
    """Saves, shares, lists and deletes views. Thread-safe."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._store = SavedViewStore(ledger.engine)
        self._clock = clock

    def views(self, principal: Principal, page: str | None = None) -> list[SavedView]:
        """The views (of one page) that a person may open, by name: their own, then those shared with their role."""
        found = [view for view in self._store.all() if _may_open(principal, view) and page in (None, view.page)]
        return sorted(found, key=lambda view: (view.owner != principal.name, view.name.casefold(), view.owner))

    def save(
        self, principal: Principal, *, page: str, name: str, query: str, shared_with: Role | None = None
    ) -> SavedView:
        """Save a view under a name, in place of the person's own view of that page and name.

        query: URL parameters of the page, percent-encoded.

        Raises BadParameter: naming what is not accepted.
        """
        name = " ".join(name.split())
        if not 1 <= len(name) <= NAME_CHARACTERS or not name.isprintable():
            raise BadParameter("name", name, f"1 to {NAME_CHARACTERS} printable characters")
        if not _PAGE.fullmatch(page):
            raise BadParameter("page", page, "a page of the dashboard")
        if len(query) > QUERY_CHARACTERS or not (query.isascii() and query.isprintable()):
            raise BadParameter("query", f"{len(query):,} characters", f"at most {QUERY_CHARACTERS:,}, percent-encoded")
        view = SavedView(uuid.uuid4().hex, principal.name, name, page, query, shared_with, self._clock())
        saved = self._store.put(view, most=VIEWS_PER_PERSON)
        if saved is None:
            raise BadParameter("name", name, f"at most {VIEWS_PER_PERSON} views for each person; delete one first")
        return saved

    def delete(self, principal: Principal, view_id: str) -> None:
        """Delete a view of one's own; admins may delete shared views of others too.

        Raises NotFound: if there is no such view, or the person may not see it.
        Raises AccessDenied: if it is somebody else's.
        """
        view = self._openable(principal, view_id)
        if view.owner != principal.name and principal.role is not Role.ADMIN:
            raise AccessDenied(f"{view.name!r} belongs to {view.owner}; only they or an admin may delete it")
        self._store.remove(view.id, actor=principal.name)

    def set_start(self, principal: Principal, view_id: str | None) -> None:
        """Open the dashboard on a view when this person signs in; `None`: on Usage Events.

        Raises NotFound: if there is no such view, or the person may not see it.
        """
        self._store.set_start(principal.name, None if view_id is None else self._openable(principal, view_id).id)

    def start(self, principal: Principal) -> SavedView | None:
        """The view the dashboard opens on; `None` if none was chosen, or it was deleted or is no longer shared."""
        chosen = self._store.start_of(principal.name)
        return next((view for view in self.views(principal) if view.id == chosen), None)

    def _openable(self, principal: Principal, view_id: str) -> SavedView:
        found = next((view for view in self.views(principal) if view.id == view_id), None)
        if found is None:
            raise NotFound("no such saved view; it may have been deleted")
        return found


def _may_open(principal: Principal, view: SavedView) -> bool:
    return view.owner == principal.name or view.shared_with is principal.role
