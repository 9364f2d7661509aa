"""``dynserve completion``: scripts with which a shell completes verbs, options and symbols."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .target import Target

__all__ = ["complete_method", "complete_service", "complete_symbol", "completion"]

_VARIABLE = "_DYNSERVE_COMPLETE"
_SECONDS = 2.0  # that a person waits for names


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print a script that makes a shell complete `dynserve`.

    Services and methods are completed, too: the server or the sources named before are asked.

    \b
    Examples:
      dynserve completion bash > ~/.local/share/bash-completion/completions/dynserve
      dynserve completion zsh > ~/.zfunc/_dynserve
      dynserve completion fish > ~/.config/fish/completions/dynserve.fish
    """
    root = click.get_current_context().find_root().command
    script = get_completion_class(shell)
    if script is not None:
        click.echo(script(root, {}, "dynserve", _VARIABLE).source())


def complete_service(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The services that begin so."""
    return _complete(ctx, incomplete, "")


def complete_method(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The services that begin so, as ``pkg.Service/Method`` where there is one only."""
    return _complete(ctx, incomplete, "/")


def complete_symbol(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The services that begin so, with their methods where there is one only."""
    return _complete(ctx, incomplete, ".")


def _complete(ctx: click.Context, incomplete: str, separator: str) -> list[str]:
    """Nothing where who could tell does not: a shell has no place for an error."""
    try:
        names = _names(Target.of(ctx.params, _SECONDS), incomplete, separator)
    except Exception:
        return []
    return [name for name in names if name.startswith(incomplete)]


def _names(target: Target, incomplete: str, separator: str) -> list[str]:
    with target.tell() as told:
        services = [
            name
            for name in told.services()
            if name.startswith(incomplete) or incomplete.startswith(name + separator)
        ]
        if len(services) != 1 or not separator:
            return services
        methods = [f"{services[0]}{separator}{name}" for name in told.methods(services[0])]
    return methods if separator == "/" else [*services, *methods]
