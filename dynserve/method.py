"""What is known of a method and of a service, found once from the descriptors."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

__all__ = ["Kind", "MethodInfo", "ServiceInfo"]


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


@dataclass(frozen=True, slots=True, eq=False)
class MethodInfo:
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


@dataclass(frozen=True, slots=True, eq=False)
class ServiceInfo:
    """A service, as its .proto declares it; ``methods`` are in the order of the file."""

    name: str
    methods: Mapping[str, MethodInfo]
    options: Mapping[str, Any]
    doc: str
    file: str
