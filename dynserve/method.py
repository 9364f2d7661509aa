"""What is known of a method and of a service, found once from the descriptors."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message

if TYPE_CHECKING:
    from typing import Protocol

    class Declarations(Protocol):
        """What a file says of its elements, by their full names."""

        def doc(self, element: str) -> str:
            """The comment in front of an element."""

        def options(self, element: str) -> Mapping[str, Any]:
            """The options that are set on an element."""


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


_Self = TypeVar("_Self")
_set = object.__setattr__


class _Declared:
    """What a .proto says of an element; what it says beside types is read when first asked for."""

    __slots__ = ("_declared", "_doc", "_options", "full_name")

    full_name: str
    _declared: Callable[[], Declarations]
    _options: Mapping[str, Any] | None
    _doc: str | None

    def __init__(self, full_name: str, declared: Callable[[], Declarations]) -> None:
        _set(self, "full_name", full_name)
        _set(self, "_declared", declared)
        _set(self, "_options", None)
        _set(self, "_doc", None)

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} is shared by all: {name!r} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(
            f"a {type(self).__name__} is shared by all: {name!r} cannot be deleted"
        )

    def __copy__(self: _Self) -> _Self:
        return self  # there is one of each

    def __deepcopy__(self: _Self, _memo: object) -> _Self:
        return self

    @property
    def options(self) -> Mapping[str, Any]:
        """The options that are set: standard (``"deprecated"``) and custom (``"pkg.name"``) ones.

        Raises:
            DescriptorError: the file's source locations are damaged.
        """
        options = self._options
        if options is None:
            options = self._declared().options(self.full_name)
            _set(self, "_options", options)
        return options

    @property
    def doc(self) -> str:
        """The comment in front of it, empty where there is none.

        Raises:
            DescriptorError: the file's source locations are damaged.
        """
        doc = self._doc
        if doc is None:
            doc = self._declared().doc(self.full_name)
            _set(self, "_doc", doc)
        return doc


class MethodInfo(_Declared):
    """A method of a service, as its .proto declares it.

    ``request`` and ``response`` are the message classes of the schema's own pool. ``full_name`` is
    the protobuf name: ``pkg.Service.Method``.
    """

    __slots__ = ("kind", "name", "request", "response", "service")

    service: str
    name: str
    kind: Kind
    request: type[Message]
    response: type[Message]

    def __init__(
        self,
        service: str,
        name: str,
        kind: Kind,
        request: type[Message],
        response: type[Message],
        declared: Callable[[], Declarations],
    ) -> None:
        super().__init__(f"{service}.{name}", declared)
        _set(self, "service", service)
        _set(self, "name", name)
        _set(self, "kind", kind)
        _set(self, "request", request)
        _set(self, "response", response)

    @property
    def path(self) -> str:
        """The HTTP/2 path of the method: ``/pkg.Service/Method``."""
        return f"/{self.service}/{self.name}"

    def __str__(self) -> str:
        return f"{self.service}/{self.name}"

    def __repr__(self) -> str:
        return f"<MethodInfo {self}: {self.kind}>"


class ServiceInfo(_Declared):
    """A service, as its .proto declares it; ``methods`` are in the order of the file."""

    __slots__ = ("file", "methods", "name")

    name: str
    methods: Mapping[str, MethodInfo]
    file: str

    def __init__(
        self,
        name: str,
        methods: Mapping[str, MethodInfo],
        file: str,
        declared: Callable[[], Declarations],
    ) -> None:
        super().__init__(name, declared)
        _set(self, "name", name)
        _set(self, "methods", methods)
        _set(self, "file", file)

    def __repr__(self) -> str:
        return f"<ServiceInfo {self.name}: {', '.join(self.methods)}>"
