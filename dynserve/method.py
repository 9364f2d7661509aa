"""What is known of a method and of a service, found once from the descriptors."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import Message

__all__ = ["Kind", "MethodInfo", "ServiceInfo"]

_Class = TypeVar("_Class", bound=type)


class Kind(enum.Enum):
    """The four streaming kinds, as two booleans: are requests a stream, are responses a stream."""

    UNARY_UNARY = (False, False)
    UNARY_STREAM = (False, True)
    STREAM_UNARY = (True, False)
    STREAM_STREAM = (True, True)

    @property
    def request_streaming(self) -> bool:
        """Whether the client sends a stream of requests."""
        return self.value[0]

    @property
    def response_streaming(self) -> bool:
        """Whether the server sends a stream of responses."""
        return self.value[1]

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")


def _by_identity(cls: _Class) -> _Class:
    """Have objects be equal to themselves only, as tuples are not: each belongs to one schema."""
    for name in ("__eq__", "__ne__", "__hash__"):
        setattr(cls, name, getattr(object, name))
    return cls


@_by_identity
class MethodInfo(NamedTuple):
    """A method of a service, as its .proto declares it.

    ``request`` and ``response`` are the message classes of the schema's own pool. ``options`` maps
    the names of the options that are set, standard (``"deprecated"``) or custom (``"pkg.name"``),
    to their values. ``doc`` is the comment in front of the method, empty where there is none.
    """

    service: str
    name: str
    kind: Kind
    request: type[Message]
    response: type[Message]
    options: Mapping[str, Any]
    doc: str

    @property
    def path(self) -> str:
        """The HTTP/2 path of the method: ``/pkg.Service/Method``."""
        return f"/{self.service}/{self.name}"

    @property
    def full_name(self) -> str:
        """The protobuf name of the method: ``pkg.Service.Method``."""
        return f"{self.service}.{self.name}"

    def __str__(self) -> str:
        return f"{self.service}/{self.name}"


@_by_identity
class ServiceInfo(NamedTuple):
    """A service, as its .proto declares it; ``methods`` are in the order of the file."""

    name: str
    methods: Mapping[str, MethodInfo]
    options: Mapping[str, Any]
    doc: str
    file: str
