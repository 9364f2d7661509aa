"""The settings of a server as flags, from the one table that has them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from dynserve.errors import SettingError
from dynserve.settings import GROUPS, Setting

__all__ = ["GroupedCommand", "setting_options"]


class _Value(click.ParamType):  # type: ignore[type-arg]  # of click 8.2 and 8.3
    """The text of a flag, as its setting has it."""

    def __init__(self, setting: Setting) -> None:
        self.name = setting.type.metavar
        self._setting = setting

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            self._setting.checked(value, self._setting.flag)
        except SettingError as error:
            self.fail(f"got {value!r}, expected {error.expected}", param, ctx)
        return value  # as it is: None would be "not given"


def _option(setting: Setting) -> click.Option:
    if not setting.type.metavar:
        return _switch(setting)
    metavar = f"[{setting.type.metavar}]" if "|" in setting.type.metavar else setting.type.metavar
    text = setting.help
    if setting.default not in (None, ()):
        text += f"  [default: {_shown(setting.default)}]"
    return click.Option(
        [setting.name, setting.flag], type=_Value(setting), default=None, help=text, metavar=metavar
    )


def _switch(setting: Setting) -> click.Option:
    flag = setting.flag
    if setting.default is None:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
        return click.Option([setting.name, flag], default=None, help=setting.help)
    value = not setting.default
    return click.Option(
        [setting.name, flag], is_flag=True, flag_value=value, default=None, help=setting.help
    )


def _shown(default: Any) -> str:
    if isinstance(default, int) and default % (1 << 10) == 0:
        return f"{default >> 20}MiB" if default % (1 << 20) == 0 else f"{default >> 10}KiB"
    return f"{default:g}" if isinstance(default, float) else str(default)


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command a flag for each setting; it gets those that were given as ``settings``."""
    names = [setting.name for group in GROUPS.values() for setting in group]

    @functools.wraps(command)
    def with_settings(**given: Any) -> Any:
        settings = {name: given.pop(name) for name in names}
        given["settings"] = {name: value for name, value in settings.items() if value is not None}
        return command(**given)

    options = [_option(setting) for group in GROUPS.values() for setting in group]
    known = getattr(command, "__click_params__", [])
    with_settings.__click_params__ = [*reversed(options), *known]  # type: ignore[attr-defined]
    return with_settings


class GroupedCommand(click.Command):
    """A command whose help shows the settings by what they are about."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options: the command's own, then each group of settings."""
        groups = {s.name: title for title, group in GROUPS.items() for s in group}
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for title in GROUPS:
            sections[title] = []
        for parameter in self.get_params(ctx):
            if not isinstance(parameter, click.Option):
                continue
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections[groups.get(parameter.name or "", "Options")].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
