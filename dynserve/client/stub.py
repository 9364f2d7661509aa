"""A stub: the methods of a service as attributes, with what the .proto says of them as help."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from dynserve.errors import did_you_mean
from dynserve.method import MethodInfo, ServiceInfo
from dynserve.schema import Schema
from dynserve.schema.field_names import SCALARS

__all__ = ["Documented", "Stub", "method_doc"]

_Method = TypeVar("_Method")


class _Doc:
    """The docstring of a class, and of each instance its own, made when it is asked for."""

    def __init__(self, of_class: str | None) -> None:
        self._of_class = of_class

    def __get__(self, instance: Any, _owner: type) -> str | None:
        return self._of_class if instance is None else instance._doc()


class Documented(abc.ABC):
    """A class whose instances have ``_doc()`` as their docstring, which ``help()`` shows."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        type.__setattr__(cls, "__doc__", _Doc(cls.__doc__))

    @abc.abstractmethod
    def _doc(self) -> str:
        """The docstring of an instance."""


class Stub(Documented, Generic[_Method]):
    """Calls the methods of a service: ``stub.GetFeature(latitude=1, longitude=2)``.

    An attribute for each method, by the name that it has in the .proto; ``dir(stub)`` lists them,
    ``help(stub)`` and ``help(stub.GetFeature)`` show types and comments.
    """

    def __init__(self, service: ServiceInfo, make: Callable[[MethodInfo], _Method]) -> None:
        self._service = service
        self._make = make

    def __getattr__(self, name: str) -> _Method:
        if name.startswith("__"):  # Python asks for many of these, of half-made objects too
            raise AttributeError(name)
        method = self._service.methods.get(name)
        if method is None:
            near = did_you_mean(name, self._service.methods)
            text = f"{self._service.name} has no method {name!r}{near}"
            raise AttributeError(text, name=name, obj=None)  # Python would suggest a name, too
        made = self._make(method)
        self.__dict__[name] = made
        return made

    def __dir__(self) -> list[str]:
        return sorted(self._service.methods)

    def __repr__(self) -> str:
        return f"<Stub {self._service.name}: {', '.join(self._service.methods)}>"

    def _doc(self) -> str:
        parts = [f"service {self._service.name}", _indented(self._service.doc)]
        for method in self._service.methods.values():
            parts += [f"\n{_line(method)}", _indented(method.doc)]
        return "\n".join(part for part in parts if part)


def method_doc(schema: Schema, method: MethodInfo) -> str:
    """What ``help()`` says of a method: its types, its comment, the fields of its request."""
    parts = [_line(method), _indented(method.doc)]
    descriptor: Any = method.request.DESCRIPTOR
    if descriptor.fields:
        comments = schema.comments(descriptor.file.name)
        parts.append(f"\nFields of {descriptor.full_name}:")
        for field in descriptor.fields:
            parts.append(_indented(f"{field.name}: {_type_of(field)}"))
            comment = comments.get(f"{descriptor.full_name}.{field.name}", "")
            parts.append(_indented(_indented(comment)))
    return "\n".join(part for part in parts if part)


def _line(method: MethodInfo) -> str:
    """``GetFeature(routeguide.Point) -> routeguide.Feature``, streams said."""
    request, response = method.request.DESCRIPTOR.full_name, method.response.DESCRIPTOR.full_name
    given = f"stream {request}" if method.kind.request_streaming else request
    taken = f"stream {response}" if method.kind.response_streaming else response
    return f"{method.name}({given}) -> {taken}"


def _type_of(field: Any) -> str:
    if field.message_type is not None:
        if field.message_type.GetOptions().map_entry:
            key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            return f"map<{_type_of(key)}, {_type_of(value)}>"
        name = field.message_type.full_name
    elif field.enum_type is not None:
        name = field.enum_type.full_name
    else:
        name = SCALARS[field.type]
    return f"repeated {name}" if field.is_repeated else name


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())
