"""``dynserve check``: compile sources and report."""

from __future__ import annotations

from pathlib import Path

import click

from dynserve.schema import Schema

from .progress import waiting

__all__ = ["check"]


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "-I", "--include", multiple=True, metavar="DIR", type=click.Path(path_type=Path),
    help="A root that imports are searched in, before any other and in the order given; for a file"
    " below one, no other is inferred. Repeatable.",
)  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors and warnings.")
def check(paths: tuple[str, ...], include: tuple[Path, ...], quiet: bool) -> None:
    """Compile sources and report every error.

    A PATH is a .proto file, a folder or a descriptor set; all of them are one schema. Warnings are
    reported too. The exit code is 0 when it compiles, warnings or not, and 1 when it
    does not.
    """
    with waiting("Compiling"):
        schema = Schema.load(*paths, include=include, cache=False)
    for warning in schema.warnings:
        click.echo(str(warning), err=True)
    schema.build()
    if quiet:
        return
    files, services = len(schema.declared_files), schema.declared_services
    methods = sum(len(schema.method_kinds(service)) for service in services)
    warnings = f", {_count(len(schema.warnings), 'warning')}" if schema.warnings else ""
    click.echo(
        f"ok: {_count(files, 'file')}, {_count(len(services), 'service')},"
        f" {_count(methods, 'method')}{warnings}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
