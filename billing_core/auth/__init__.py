"""Sign-in, accounts, sessions and API tokens. Imports no Streamlit, and nothing heavy."""

from __future__ import annotations

from billing_core.auth.gatekeeper import Gatekeeper
from billing_core.auth.tokens import Token, TokenFile
from billing_core.auth.users import User, UserFile

__all__ = ["Gatekeeper", "Token", "TokenFile", "User", "UserFile"]
