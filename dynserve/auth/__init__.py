"""Authentication: who calls, found out before the handler runs.

An authenticator is any callable ``(context) -> Identity | None``, plain or ``async``. None, or a
:class:`dynserve.StatusError`, refuses the call. Here are ready ones, what combines them, and what
asks a method's caller for more than a name. Nothing here is used unless it is imported.
"""

from dynserve.auth.any_of import any_of
from dynserve.auth.certificate import ClientCertificate
from dynserve.auth.json_web_token import JWT
from dynserve.auth.policy import Policy
from dynserve.auth.requirements import require, require_scopes
from dynserve.auth.settings import from_settings
from dynserve.auth.tokens import APIKeys, BearerTokens
from dynserve.identity import Identity

__all__ = [
    "JWT",
    "APIKeys",
    "BearerTokens",
    "ClientCertificate",
    "Identity",
    "Policy",
    "any_of",
    "from_settings",
    "require",
    "require_scopes",
]
