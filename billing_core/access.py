"""Who asks for billing data (`Principal`), and which rows that person may see (`Scope`).

A query on the ledger needs a `Scope`, and a `Scope` is only made from a `Principal`: there is no way to
write a read that forgets to ask who is reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from billing_core.errors import AccessDenied

SEES_NO_COSTS = "may see some organizations only, and no cost or margin of ours"
"""Why an account is refused a figure, after its name."""


class Role(StrEnum):
    """The job of an account: analyst, finance or admin; each page and command names the roles it serves."""

    ANALYST = "analyst"
    FINANCE = "finance"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Someone who asks: a signed-in person, an API token or the operating-system user of a command.

    name: Account, token or operating-system user, as the audit log shall name it.
    role: See `Role`.
    organizations: The organizations this principal is limited to; `None` means every organization *and* events without
        one. An empty set sees nothing.
    """

    name: str
    role: Role
    organizations: frozenset[str] | None = None

    @property
    def sees_costs(self) -> bool:
        """Whether our costs and margins are for the principal: not for who is limited to organizations."""
        return self.organizations is None

    def require(self, *roles: Role) -> None:
        """Raise `AccessDenied` unless the principal has one of `roles`."""
        if self.role not in roles:
            raise AccessDenied(f"{self.name} has the {self.role} role; this needs the {' or '.join(roles)} role")

    def require_everything(self, why: str) -> None:
        """Raise `AccessDenied`, which ends with `why`, if the principal is limited to organizations."""
        if self.organizations is not None:
            raise AccessDenied(f"{self.name} may see some organizations only; {why}")

    def require_organization(self, organization_id: str) -> None:
        """Raise `AccessDenied` if the principal is limited to other organizations."""
        if self.organizations is not None and organization_id not in self.organizations:
            raise AccessDenied(f"{self.name} has no access to organization {organization_id!r}")


@dataclass(frozen=True, slots=True)
class Scope:
    """The rows a principal may read: `organizations` as in `Principal`, sorted so that it can key a cache."""

    organizations: tuple[str, ...] | None

    @property
    def sees_costs(self) -> bool:
        """Whether rows show what the models cost us: see `Principal.sees_costs`."""
        return self.organizations is None

    def holds(self, organization_id: str) -> bool:
        """Whether a principal with this scope may read events of an organization; `None` is an event without one."""
        return self.organizations is None or organization_id in self.organizations


def scope_of(principal: Principal) -> Scope:
    """The scope of a principal, made by this function only. An empty or missing id is dropped and never matches."""
    if principal.organizations is None:
        return Scope(None)
    return Scope(tuple(sorted(o for o in principal.organizations if o)))


def system_principal(name: str) -> Principal:
    """The principal of the command line: it acts for whoever may read the ledger file and sees everything."""
    return Principal(name, Role.ADMIN)
