"""What Envoy has to know of a schema to translate JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dynserve.errors import DescriptorError
from dynserve.schema import Schema
from dynserve.schema.descriptors import join

from .proxy import Transcoding

__all__ = ["transcoding"]

# Envoy shows the details of an error as JSON if it knows their types.
_DETAILS = "google/rpc/error_details.proto"


def transcoding(schemas: Iterable[Schema], **options: Any) -> Transcoding:
    """The services of schemas, as a :class:`Transcoding` with ``options``.

    The files are those that declare the services and all that they import, without comments.

    Raises:
        DescriptorError: two schemas have different files of one name.
    """
    files: dict[str, bytes] = {}
    services: dict[str, None] = {}
    for schema in schemas:
        services |= dict.fromkeys(schema.declared_services)
        _add(files, schema, {schema.index.services[name] for name in schema.declared_services})
    if _DETAILS not in files:
        details = Schema.load(f"package:googleapis-common-protos/{_DETAILS}")
        for name in details.index.with_imports([_DETAILS]):
            files.setdefault(name, details.index.stripped(name))
    return Transcoding(join(files.values()), tuple(services), **options)


def _add(files: dict[str, bytes], schema: Schema, wanted: Iterable[str]) -> None:
    for name in schema.index.with_imports(wanted):
        content = schema.index.stripped(name)
        if files.setdefault(name, content) != content:
            problem = (
                "two plugins have different files of this name, and Envoy takes one; write a"
                " configuration for each of them"
            )
            raise DescriptorError(name, problem)
