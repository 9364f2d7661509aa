"""What the services of one file say of themselves beside their types: comments and options."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from google.protobuf.message import DecodeError, Message

from dynserve.errors import DescriptorError

from .comments import comments_of
from .descriptors import message_class, parse_file
from .options import Options

if TYPE_CHECKING:
    from .schema import Schema

__all__ = ["Declarations"]


class Declarations:
    """The comments of a file, and the options of its services and methods, by full name.

    Raises:
        DescriptorError: the file's source locations are damaged.
    """

    def __init__(self, schema: Schema, file: str) -> None:
        try:
            parsed = parse_file(schema.index.raw(file))
        except DecodeError as error:
            raise DescriptorError(file, f"damaged source locations: {error}") from error
        self.comments: Mapping[str, str] = MappingProxyType(comments_of(parsed))
        self._schema = schema
        self._given: dict[str, tuple[str, bytes]] = {}  # the options as they stand in the file
        scope = f"{parsed.package}." if parsed.package else ""
        for service in parsed.service:
            self._given[scope + service.name] = _serialised(service.options)
            for method in service.method:
                self._given[f"{scope}{service.name}.{method.name}"] = _serialised(method.options)

    def doc(self, element: str) -> str:
        """The comment in front of an element, empty where there is none."""
        return self.comments.get(element, "")

    def options(self, element: str) -> Options:
        """The options that are set on a service or a method."""
        name, data = self._given[element]
        schema = self._schema  # which the options hold, and not all declarations of the file

        def parse() -> Message:
            # As it stands in the file every custom option is an unknown field; the schema's own
            # class of the options, if it has one, knows its extensions.
            known = schema.has_message(name)
            own = schema.message(name) if known else message_class(name.rpartition(".")[2])
            try:
                return cast("Message", own.FromString(data))
            except DecodeError as error:
                raise DescriptorError(element, f"damaged options: {error}") from error

        return Options(element, parse)


def _serialised(options: Message) -> tuple[str, bytes]:
    """The name of their type, and what they are."""
    return options.DESCRIPTOR.full_name, options.SerializeToString()
