"""Passwords: which are accepted, their bcrypt hashes, and how they are compared.

bcrypt is used directly; streamlit-authenticator keeps the same hashes, but importing it means importing Streamlit.
"""

from __future__ import annotations

import re

import bcrypt

from billing_core.auth.demo import DEMO_PASSWORDS
from billing_core.errors import BadParameter

COST = 12
"""bcrypt work factor, about 0.3 s per check; the one streamlit-authenticator uses."""

MINIMUM_LENGTH = 8
"""Characters."""

MAXIMUM_BYTES = 72
"""bcrypt reads no further: a longer password would be cut without a word, and bcrypt 5 refuses it."""

DUMMY_HASH = "$2b$12$fsV0czP9QhUg3B.dkpoYIu8ii1BkfJr4Lgiiub0qptQBUlfNy7Ob2"
"""Of a random password nobody kept: unknown names are checked against it, so that they take as long as known ones."""

_HASH = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")


def hash_password(password: str) -> str:
    """The bcrypt hash of a new password, which must be acceptable.

    Raises BadParameter: when the password is too short, too long, a demo password, or begins or ends with a blank (the
    sign-in form trims those). The text never holds the password.
    """
    fault = _fault(password)
    if fault is not None:
        raise BadParameter("password", "(not shown)", fault)
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(COST)).decode()


def matches(password: str, password_hash: str) -> bool:
    """Whether a password has this bcrypt hash; takes the hash's full time either way."""
    return fits_bcrypt(password) and bcrypt.checkpw(password.encode(), password_hash.encode())


def fits_bcrypt(password: str) -> bool:
    """Whether bcrypt reads the whole password; longer ones are refused before any hashing."""
    try:
        return len(password.encode()) <= MAXIMUM_BYTES and "\x00" not in password
    except UnicodeEncodeError:
        return False


def is_hash(text: str) -> bool:
    """Whether a text is a bcrypt hash (and not, say, a password somebody wrote into the file)."""
    return _HASH.fullmatch(text) is not None


def is_cheap(password_hash: str) -> bool:
    """Whether a bcrypt hash costs less than those made here, so that a stolen file is cheaper to guess against."""
    return int(password_hash[4:6]) < COST


def _fault(password: str) -> str | None:
    if len(password) < MINIMUM_LENGTH:
        return f"at least {MINIMUM_LENGTH} characters"
    if not fits_bcrypt(password):
        return f"at most {MAXIMUM_BYTES} bytes of text"
    if password != password.strip():
        return "a password that neither begins nor ends with a blank"
    if password in DEMO_PASSWORDS:
        return "a password that is not one of the published demo passwords"
    return None
