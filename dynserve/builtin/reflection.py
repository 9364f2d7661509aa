"""grpc.reflection.v1 and v1alpha, one implementation over the routes that are served.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md

The contract comes from grpcio-reflection, which ships v1alpha; v1 has the same messages under
another package. Files are sent as they were compiled, comments included, from the very snapshot
that calls are routed by.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import grpc

from dynserve.binding import bind
from dynserve.context import AsyncContext
from dynserve.names import quoted
from dynserve.routes import LateService, Routes
from dynserve.schema import Schema
from dynserve.schema.descriptors import join, parse_file
from dynserve.service import Service
from dynserve.unit import Unit

from .drain import Drain

if TYPE_CHECKING:
    from dynserve.auth.policy import Policy

    from .catalog import Catalog, File

__all__ = ["REFLECTION", "reflection_services"]

REFLECTION = tuple(f"grpc.reflection.{version}.ServerReflection" for version in ("v1", "v1alpha"))


def reflection_services(
    routes: Callable[[], Routes], drain: Drain, policy: Policy | None = None
) -> list[LateService]:
    """Both versions of the service, to be bound; ``policy`` says who may call them.

    ``routes`` gives the snapshot to describe.
    """
    catalogs = _Catalogs(routes)

    def service(version: str, load: Callable[[], Schema]) -> LateService:
        package = f"grpc.reflection.{version}"
        name = f"{package}.ServerReflection"

        def bound() -> Routes:
            schema, service = load(), Service(name)
            service.add(_Reflection(schema, package, catalogs, drain).info, "ServerReflectionInfo")
            return bind([Unit(schema, [service], policy=policy)])

        return LateService(name, bound)

    return [service("v1", _v1), service("v1alpha", _v1alpha)]


def _v1alpha() -> Schema:
    from grpc_reflection.v1alpha import reflection_pb2  # enters protobuf's process-wide pool

    return Schema.load(reflection_pb2)


def _v1() -> Schema:
    from grpc_reflection.v1alpha import reflection_pb2

    file = parse_file(reflection_pb2.DESCRIPTOR.serialized_pb)
    old, new = file.package, "grpc.reflection.v1"
    file.name, file.package = "grpc/reflection/v1/reflection.proto", new
    for option, value in file.options.ListFields():
        if option.name == "deprecated":
            file.options.ClearField("deprecated")
        elif option.name.endswith("_package"):
            setattr(file.options, option.name, value.replace("v1alpha", "v1"))
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(f".{old}.", f".{new}.")
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{old}.", f".{new}.")
            method.output_type = method.output_type.replace(f".{old}.", f".{new}.")
    return Schema.load(join([file.SerializeToString()]))


class _Catalogs:
    """The catalog of the current snapshot, made when the first client asks."""

    def __init__(self, routes: Callable[[], Routes]) -> None:
        self._routes = routes
        self._made: tuple[Routes, Catalog] | None = None

    def current(self) -> Catalog:
        from .catalog import Catalog  # not needed before the first client asks

        routes = self._routes()
        if self._made is None or self._made[0] is not routes:
            self._made = routes, Catalog(routes)
        return self._made[1]


class _Reflection:
    def __init__(self, schema: Schema, package: str, catalogs: _Catalogs, drain: Drain) -> None:
        self._response: Any = schema.message(f"{package}.ServerReflectionResponse")
        self._catalogs = catalogs
        self._drain = drain

    async def info(self, requests: AsyncIterator[Any], context: AsyncContext) -> None:
        """Answer each request of the stream."""
        stream = _Stream(self._catalogs.current())
        while True:
            request = await self._drain.wait_for(anext(requests, None))
            if request is None:
                return
            response = self._response(valid_host=request.host, original_request=request)
            stream.answer(request, response)
            await context.write(response)


class _Stream:
    """What one stream is answered: all of it from the snapshot of its start, each file once."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._sent: set[str] = set()

    def answer(self, request: Any, response: Any) -> None:
        """Fill in the response; what is not found is said in it, so that the stream goes on."""
        match request.WhichOneof("message_request"):
            case "list_services":
                for name in self._catalog.services:
                    response.list_services_response.service.add(name=name)
            case "file_by_filename":
                name = request.file_by_filename
                self._give(response, self._catalog.file(name), f"no file {quoted(name)}")
            case "file_containing_symbol":
                symbol = request.file_containing_symbol
                self._give(response, self._catalog.file_of(symbol), f"no symbol {quoted(symbol)}")
            case "file_containing_extension":
                asked = request.file_containing_extension
                extendee, number = asked.containing_type, asked.extension_number
                file = self._catalog.extension(extendee, number)
                self._give(response, file, f"no extension {number} of {quoted(extendee)}")
            case "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                numbers = self._catalog.extension_numbers(name)
                if numbers is None:
                    _refuse(response, grpc.StatusCode.NOT_FOUND, f"no message type {quoted(name)}")
                    return
                response.all_extension_numbers_response.base_type_name = name
                response.all_extension_numbers_response.extension_number.extend(numbers)
            case _:
                _refuse(response, grpc.StatusCode.INVALID_ARGUMENT, "the request asks for nothing")

    def _give(self, response: Any, file: File | None, missing: str) -> None:
        """The file, and of all that it imports what this stream has not sent."""
        if file is None:
            _refuse(response, grpc.StatusCode.NOT_FOUND, missing)
            return
        files = self._catalog.bundle(file, self._sent)
        response.file_descriptor_response.file_descriptor_proto.extend(files)


def _refuse(response: Any, code: grpc.StatusCode, message: str) -> None:
    response.error_response.error_code = code.value[0]
    response.error_response.error_message = message
