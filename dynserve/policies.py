"""Which policy holds for what: by the apps, or by settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dynserve.errors import BindError, SettingError, did_you_mean
from dynserve.settings import SETTINGS

if TYPE_CHECKING:
    from dynserve.auth.policy import Policy
    from dynserve.routes import Routes
    from dynserve.settings import Settings

__all__ = ["check_public", "policy_of", "policy_of_settings"]

_AUTHENTICATORS = (
    "auth_tokens",
    "auth_jwks",
    "auth_issuer",
    "auth_audience",
    "auth_api_keys",
    "auth_client_cert",
)
_OPENINGS = ("auth_public", "auth_health", "auth_reflection")  # of no effect without one


def policy_of(
    policies: Sequence[Policy | None], settings: Settings, asked_for: Policy | None
) -> Policy | None:
    """What guards that which is of no app: reflection, health, methods that are not there.

    ``policies`` are those of the app that is served and of those mounted in it. Where the first has
    none, whoever may call one of the others may: reflection shows all of them. ``asked_for`` is
    what the settings ask for.

    Raises:
        SettingError: settings ask for authentication, and an app has its own; or one has no effect
            without another.
        CredentialsError: what they name cannot be used.
    """
    found = [policy for policy in policies if policy is not None]
    asked = _asked(settings) | _opened(settings)
    if asked and found:
        name = next(iter(asked))
        raise SettingError(name, asked[name], "nothing: the app has authentication of its own")
    if not found:
        for name, value in _opened(settings).items() if asked_for is None else ():
            raise SettingError(name, value, "auth_tokens, or another authenticator, beside it")
        return asked_for
    if policies[0] is not None or len(set(found)) == 1:
        return found[0]
    from dynserve.auth import Policy, any_of

    return Policy(
        any_of(*(policy.authenticate for policy in dict.fromkeys(found))),
        health="open" if all(one.is_health_open for one in found) else "required",
        reflection="open" if all(one.is_reflection_open for one in found) else "required",
    )


def policy_of_settings(settings: Settings) -> Policy | None:
    """What settings ask for; None where they ask for none.

    Raises:
        CredentialsError: what they name cannot be used.
        SettingError: one has no effect without another.
    """
    asked = _asked(settings)
    if not asked:
        return None
    if settings.auth_client_cert and settings.tls_client_ca is None:
        expected = "tls_client_ca beside it, for clients to be asked for a certificate"
        raise SettingError("auth_client_cert", settings.auth_client_cert, expected)
    from dynserve.auth import Policy, from_settings  # not needed where everybody may call

    authenticate = from_settings(**asked)
    if authenticate is None:
        return None
    return Policy(
        authenticate,
        public=settings.auth_public or (),
        health=settings.auth_health,
        reflection=settings.auth_reflection,
    )


def _asked(settings: Settings) -> dict[str, Any]:
    given = {name: getattr(settings, name) for name in _AUTHENTICATORS}
    return {name: value for name, value in given.items() if value is not None}


def check_public(policies: Iterable[Policy | None], routes: Routes) -> None:
    """What policies open to everybody has to be there: it may be misspelled.

    Raises:
        BindError: it is not.
    """
    found = dict.fromkeys(policy for policy in policies if policy is not None)
    if not found:
        return
    paths = [
        f"{service.name}/{method}"
        for service in routes.services.values()
        for method in service.schema.method_kinds(service.name)
    ]
    problems = [
        f"public {name!r}: no method that is served has that name{did_you_mean(name, paths)}"
        for policy in found
        for name in policy.unmatched(paths)
    ]
    if problems:
        raise BindError(list(dict.fromkeys(problems)))


def _opened(settings: Settings) -> dict[str, Any]:
    given = {name: getattr(settings, name) for name in _OPENINGS}
    return {name: value for name, value in given.items() if value != SETTINGS[name].default}
