"""Composition: an app and those mounted in it → units, and what guards all of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from dynserve.errors import BindError, did_you_mean
from dynserve.lifespan import Lifespan
from dynserve.policies import policy_of, policy_of_settings
from dynserve.schema import Schema
from dynserve.service import Around
from dynserve.unit import Unit

if TYPE_CHECKING:
    from dynserve.app import App
    from dynserve.auth.policy import Policy
    from dynserve.middleware import Middleware
    from dynserve.settings import Settings

__all__ = ["Served", "compose"]

_log = logging.getLogger("dynserve.server")

_EXTENDED = ("google.protobuf.MethodOptions", "google.protobuf.ServiceOptions")


class Served(NamedTuple):
    """What a server serves, and who may call what is of no app: reflection, unknown methods."""

    units: list[Unit]
    policy: Policy | None


class _Outer(NamedTuple):
    """What apps hand down to those that are mounted in them."""

    around: Around
    on_option: dict[str, tuple[Middleware, ...]]
    policy: Policy | None
    lifespans: tuple[Lifespan, ...]


def compose(app: App, settings: Settings) -> Served:
    """What a server of this app serves with these settings.

    Raises:
        SettingError: settings ask for authentication, and an app has its own.
        CredentialsError: what they name for it cannot be used.
        BindError: an option is named that nobody declares, or an app is mounted twice, under
            different authentication.
    """
    asked = policy_of_settings(settings)
    policy = policy_of([one.policy for one in app.tree()], settings, asked)
    outer = _Outer(Around(), {}, asked, ())
    units = list(_units(app, settings, outer, {}))
    problems = [problem for one in app.tree() for problem in _undeclared(one)]
    if problems:
        raise BindError(problems)
    _warn_of_open(units)
    return Served(units, policy)


def _warn_of_open(units: list[Unit]) -> None:
    """An app beside one with authentication is open to everybody, and may not be meant to be."""
    for unit in units:
        if unit.policy is None and any(other.policy is not None for other in units):
            _log.warning(
                "%s is served without authentication beside an app that has some; say app.auth(...)"
                " on it, or on the app that both are mounted in",
                unit.schema.label,
            )


def _units(
    app: App, settings: Settings, outer: _Outer, done: dict[App, Policy | None]
) -> Iterator[Unit]:
    policy = app.policy or outer.policy
    if app in done:
        if done[app] is not policy:
            raise BindError(
                ["an app is mounted twice, under different authentication; give it its own"]
            )
        return
    done[app] = policy
    on_option = {
        name: (*outer.on_option.get(name, ()), *app.option_middleware.get(name, ()))
        for name in (*outer.on_option, *app.option_middleware)
    }
    own = app.lifespan_function
    lifespans = outer.lifespans if own is None else (*outer.lifespans, Lifespan(own, app))
    inner = _Outer(outer.around.then(app.around), on_option, policy, lifespans)
    if app.has_unit():
        yield Unit(
            app.schema,
            [app, *app.services.values()],
            app.rules,
            around=inner.around,
            on_option=on_option,
            policy=policy,
            lifespan=lifespans[-1] if own is not None else None,
            outer_lifespans=outer.lifespans,
            validates=settings.validate,
        )
    for mounted in app.mounted:
        yield from _units(mounted, settings, inner, done)


def _undeclared(app: App) -> Iterator[str]:
    """Options that an app has middleware for, and that no schema of its own or below it knows."""
    if not app.option_middleware:
        return
    from google.protobuf.descriptor_pb2 import MethodOptions, ServiceOptions

    fields = (kind.DESCRIPTOR.fields_by_name for kind in (MethodOptions, ServiceOptions))
    standard = {name for names in fields for name in names}
    schemas = [one.schema for one in app.tree() if one.has_unit()]
    declared = {name for schema in schemas for name in _declared(schema)}
    for name in app.option_middleware:
        if name not in declared and name not in standard:
            near = did_you_mean(name, [*declared, *standard])
            yield f"on_option({name!r}): no option of methods or services has that name{near}"


def _declared(schema: Schema) -> Iterator[str]:
    for extended in _EXTENDED:
        yield from (extension.name for extension in schema.index.extensions(extended).values())
