"""Which calls need authentication: all but those that are said not to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dynserve.auth.refusals import check_authenticator
from dynserve.errors import CredentialsError

__all__ = ["HEALTH", "REFLECTION", "Policy"]

HEALTH = ("grpc.health.v1.Health",)
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


class Policy:
    """An authenticator, and which calls it is asked about.

    Every call needs authentication: of methods that are added later, of the admin services, and of
    methods that do not exist, so that nobody learns unasked what does. Open are only the methods
    in ``public``, and health, since who probes a server has nothing to show.

    Args:
        authenticate: the authenticator.
        health: ``"open"`` or ``"required"``.
        reflection: ``"required"``, since it shows every schema that is served, or ``"open"``.
        public: methods that anyone may call: ``"pkg.Service/Method"`` or ``"pkg.Service/*"``.

    Raises:
        TypeError: ``authenticate`` cannot be called.
        CredentialsError: another argument is none of these.
    """

    def __init__(
        self,
        authenticate: Callable[[Any], Any],
        *,
        health: str = "open",
        reflection: str = "required",
        public: Iterable[str] = (),
    ) -> None:
        check_authenticator(authenticate)
        self.authenticate = authenticate
        self.public = _checked(public)
        self.is_health_open = _is_open("health", health)
        self.is_reflection_open = _is_open("reflection", reflection)
        services = {name.removesuffix("/*") for name in self.public if name.endswith("/*")}
        if self.is_health_open:
            services.update(HEALTH)
        if self.is_reflection_open:
            services.update(REFLECTION)
        self._services = frozenset(services)
        self._methods = frozenset(self.public)

    def needs_authentication(self, path: str) -> bool:
        """Whether calls of ``/pkg.Service/Method`` do; the first slash may be missing."""
        name = path.removeprefix("/")
        service, slash, method = name.partition("/")
        is_path = bool(slash and method) and "/" not in method
        return not (is_path and (service in self._services or name in self._methods))

    def unmatched(self, paths: Iterable[str]) -> list[str]:
        """The entries of ``public`` that fit none of these paths, so that one is misspelled."""
        names = {path.removeprefix("/") for path in paths}
        names |= {f"{name.partition('/')[0]}/*" for name in names}
        return [pattern for pattern in self.public if pattern not in names]

    def __repr__(self) -> str:
        return f"Policy({self.authenticate!r}, open={sorted(self._services | self._methods)})"


def _is_open(argument: str, value: str) -> bool:
    if value not in ("open", "required"):
        raise CredentialsError(argument, f"got {value!r}, expected 'open' or 'required'")
    return value == "open"


def _checked(public: Iterable[str]) -> tuple[str, ...]:
    form = "expected 'pkg.Service/Method' or 'pkg.Service/*'"
    if isinstance(public, str):
        raise CredentialsError("public", f"got {public!r}, {form}, in a list")
    names = tuple(public)
    for name in names:
        if not isinstance(name, str):
            raise CredentialsError("public", f"got {name!r}, {form}")
        service, _, method = name.partition("/")
        is_fit = service and method and "/" not in method
        if not is_fit or "*" in service or (method != "*" and "*" in method):
            is_service = name == service and name and "*" not in name
            hint = f"; write '{name}/*' for all of its methods" if is_service else ""
            raise CredentialsError("public", f"got {name!r}, {form}{hint}")
    return names
