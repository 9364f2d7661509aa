"""``dynserve completion``: scripts with which a shell completes verbs, options and symbols."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable

import click
from click.shell_completion import (
    BashComplete,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from dynserve.errors import DynserveError

from .target import Target, Told

__all__ = ["complete_method", "complete_service", "complete_symbol", "completion"]

_VARIABLE = "_DYNSERVE_COMPLETE"
_SECONDS = 2.0  # that a person waits for names
_MOST_ASKED = 10  # services of a package, for its other symbols

# As click's own, but for the words: bash breaks them at the colon of HOST:PORT.
_BASH = r"""
%(complete_func)s() {
    local IFS=$'\n' response type value
    response=$(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1")
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read type value <<< "$completion"
        if [[ $type == 'dir' ]]; then
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("$value")
        fi
    done
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and that one."""
        line = os.environ.get("COMP_LINE")
        if line is None:
            return super().get_completion_args()
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() else words.pop()
        return words[1:], incomplete


add_completion_class(_Bash)  # in this program only
_SHELLS: dict[str, type[ShellComplete]] = {
    "bash": _Bash,
    "fish": FishComplete,
    "zsh": ZshComplete,
}


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print a script for completion in a shell.

    It completes verbs, options, files, services, methods and symbols; for the last three it asks
    the server or reads the source that was named before.

    \b
    Examples:
      dynserve completion bash > ~/.local/share/bash-completion/completions/dynserve
      dynserve completion zsh > ~/.zfunc/_dynserve
      dynserve completion fish > ~/.config/fish/completions/dynserve.fish
    """
    root = click.get_current_context().find_root().command
    click.echo(_SHELLS[shell](root, {}, "dynserve", _VARIABLE).source())


def complete_service(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The services that begin so."""
    return _complete(ctx, incomplete, _services)


def complete_method(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The services that begin so, as ``pkg.Service/Method`` where there is one only."""
    return _complete(ctx, incomplete, _methods)


def complete_symbol(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The symbols that begin so, with the methods of a service where it is the only one."""
    return _complete(ctx, incomplete, _symbols)


def _complete(
    ctx: click.Context, incomplete: str, names_of: Callable[[Told, str], Iterable[str]]
) -> list[str]:
    """Nothing where who could tell does not: a prompt has no place for errors and bars."""
    try:
        with (
            contextlib.redirect_stderr(io.StringIO()),
            Target.of(ctx.params, _SECONDS).tell() as told,
        ):
            names = names_of(told, incomplete)
    except Exception:
        return []
    return [name for name in names if name.startswith(incomplete)]


def _services(told: Told, _incomplete: str) -> Iterable[str]:
    return told.services()


def _methods(told: Told, incomplete: str) -> Iterable[str]:
    services = _that_begin(told, incomplete, "/")
    if len(services) != 1:
        return services
    return [f"{services[0]}/{name}" for name in told.methods(services[0])]


def _symbols(told: Told, incomplete: str) -> Iterable[str]:
    package, dot, _ = incomplete.rpartition(".")
    beside = [name for name in told.services() if name.startswith(package + dot)]
    if dot and len(beside) <= _MOST_ASKED:
        for name in beside:
            with contextlib.suppress(DynserveError):
                told.load([name])
    services = _that_begin(told, incomplete, ".")
    methods = told.methods(services[0]) if len(services) == 1 else ()
    inner = (f"{services[0]}.{name}" for name in methods)
    return sorted({*told.services(), *told.schema.index.symbols(), *inner})


def _that_begin(told: Told, incomplete: str, separator: str) -> list[str]:
    """The services that begin so, or whose methods do."""
    return [
        name
        for name in told.services()
        if name.startswith(incomplete) or incomplete.startswith(name + separator)
    ]
