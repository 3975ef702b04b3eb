"""The demo accounts: public, shown on the demo sign-in page, refused in live mode."""

from __future__ import annotations

from dataclasses import dataclass

from billing_core.access import Role

DEMO_ORGANIZATION = "org_acme"
"""The sandbox organization that `analyst-acme` is limited to."""


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """An account whose password everybody may read.

    password_hash: bcrypt of `password`, computed once and kept here: four hashes at every start would take over a
        second.
    organizations: As in `Principal`.
    """

    name: str
    display_name: str
    password: str
    password_hash: str
    role: Role
    organizations: frozenset[str] | None = None


DEMO_ACCOUNTS = (
    DemoAccount(
        name="analyst",
        display_name="Ana Lyst",
        password="analyst-demo",  # noqa: S106 - public on purpose
        password_hash="$2b$12$rsNuu09sWNXXvtcB7xacYOTOag3YH2sJQESHXTucPiiKvrRF33L1i",  # noqa: S106
        role=Role.ANALYST,
    ),
    DemoAccount(
        name="finance",
        display_name="Fina Nance",
        password="finance-demo",  # noqa: S106
        password_hash="$2b$12$v9seRY01SNLpy1Co4/WR2uQ.r3PsUQ0Tzk/ICO.uUvtqLUQwK2Nvi",  # noqa: S106
        role=Role.FINANCE,
    ),
    DemoAccount(
        name="admin",
        display_name="Ada Min",
        password="admin-demo",  # noqa: S106
        password_hash="$2b$12$QipNDAYl.Q28CQnk7b12Te9EltjunboUAxRWK3Cg8kXjF2a08S/Lu",  # noqa: S106
        role=Role.ADMIN,
    ),
    DemoAccount(
        name="analyst-acme",
        display_name="Acme Analyst",
        password="acme-demo",  # noqa: S106
        password_hash="$2b$12$IMq0bRt3bGQzhiYE.Ys6E.5XjBJH7dJ1wRnAF8KNFTm1qBIY/pmWy",  # noqa: S106
        role=Role.ANALYST,
        organizations=frozenset({DEMO_ORGANIZATION}),
    ),
)

DEMO_PASSWORDS = frozenset(account.password for account in DEMO_ACCOUNTS)
DEMO_HASHES = frozenset(account.password_hash for account in DEMO_ACCOUNTS)
