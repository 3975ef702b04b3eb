"""Checks of the fields that accounts and API tokens share: name, role, organizations."""

from __future__ import annotations

import re
from collections.abc import Iterable

from billing_core.access import Role
from billing_core.errors import BadParameter

ALL_ORGANIZATIONS = "*"
"""Stands alone in a list of organizations for every organization and for events without one."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def canonical_name(name: str) -> str:
    """A name as names are compared: without case and surrounding blanks, as people type them."""
    return name.strip().lower()


def checked_name(name: str) -> str:
    """The canonical form of a valid name; `BadParameter` for any other."""
    if not _NAME.fullmatch(name.strip()):
        raise BadParameter("name", name, "1 to 64 letters, digits and . _ - beginning with a letter or digit")
    return canonical_name(name)


def checked_role(role: object) -> Role:
    """The role with a name; `BadParameter` naming the roles there are."""
    try:
        return Role(str(role))
    except ValueError:
        raise BadParameter("role", role, "one of " + ", ".join(Role)) from None


def checked_organizations(organizations: Iterable[object]) -> frozenset[str] | None:
    """The organizations of an account: those listed, `None` (all) for `["*"]`; an empty list stays empty and sees
    nothing.

    Raises BadParameter: for a blank id, something that is not text, or `*` beside other ids.
    """
    listed = list(organizations)
    for organization in listed:
        if not isinstance(organization, str) or not organization.strip():
            raise BadParameter("organization", organization, "the id of an organization")
    found = frozenset(str(organization).strip() for organization in listed)
    if ALL_ORGANIZATIONS not in found:
        return found
    if len(found) > 1:
        raise BadParameter("organization", sorted(found), f"either {ALL_ORGANIZATIONS} or ids, not both")
    return None
