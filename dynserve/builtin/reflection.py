"""grpc.reflection.v1 and v1alpha, one implementation over the routes that are served.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md

The contract comes from grpcio-reflection, which ships v1alpha; v1 has the same messages under
another package. Files are sent as they were compiled, comments included, from the very snapshot
that calls are routed by.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
from grpc_reflection.v1alpha import reflection_pb2

from dynserve.binding import Routes, Unit
from dynserve.context import AsyncContext
from dynserve.schema import Schema
from dynserve.service import Service

from .drain import Drain

if TYPE_CHECKING:
    from .catalog import Catalog, File

__all__ = ["reflection_units"]

_MAX_FILES = 3 << 20  # bytes of files in one response; clients take 4 MiB unless told otherwise


def reflection_units(routes: Callable[[], Routes], drain: Drain) -> list[Unit]:
    """Both versions of the service, to be bound. ``routes`` gives the snapshot to describe."""
    catalogs = _Catalogs(routes)
    v1alpha = Schema.load(reflection_pb2)
    return [_unit(_as_v1(), "v1", catalogs, drain), _unit(v1alpha, "v1alpha", catalogs, drain)]


def _unit(schema: Schema, version: str, catalogs: _Catalogs, drain: Drain) -> Unit:
    package = f"grpc.reflection.{version}"
    service = Service(f"{package}.ServerReflection")
    service.add(_Reflection(schema, package, catalogs, drain).info, "ServerReflectionInfo")
    return Unit(schema, [service])


def _as_v1() -> Schema:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

    file = FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    old, new = file.package, "grpc.reflection.v1"
    file.name, file.package = "grpc/reflection/v1/reflection.proto", new
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(f".{old}.", f".{new}.")
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{old}.", f".{new}.")
            method.output_type = method.output_type.replace(f".{old}.", f".{new}.")
    return Schema.load(FileDescriptorSet(file=[file]))


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


class _NotFoundError(LookupError):
    """Answered in-band, so that the stream goes on."""


class _Reflection:
    def __init__(self, schema: Schema, package: str, catalogs: _Catalogs, drain: Drain) -> None:
        self._response: Any = schema.message(f"{package}.ServerReflectionResponse")
        self._catalogs = catalogs
        self._drain = drain

    async def info(self, requests: AsyncIterator[Any], context: AsyncContext) -> None:
        """Answer each request of the stream."""
        await self._drain.run(self._serve(requests, context))

    async def _serve(self, requests: AsyncIterator[Any], context: AsyncContext) -> None:
        catalog = self._catalogs.current()
        sent: set[File] = set()
        async for request in requests:
            response = self._response(valid_host=request.host, original_request=request)
            try:
                self._answer(catalog, request, response, sent)
            except _NotFoundError as error:
                _refuse(response, grpc.StatusCode.NOT_FOUND, str(error))
            await context.write(response)

    def _answer(self, catalog: Catalog, request: Any, response: Any, sent: set[File]) -> None:
        match request.WhichOneof("message_request"):
            case "list_services":
                for name in catalog.services:
                    response.list_services_response.service.add(name=name)
            case "file_by_filename":
                name = request.file_by_filename
                self._files(response, catalog.file(name), f"no file {name!r}", sent)
            case "file_containing_symbol":
                symbol = request.file_containing_symbol
                self._files(response, catalog.file_of(symbol), f"no symbol {symbol!r}", sent)
            case "file_containing_extension":
                asked = request.file_containing_extension
                file = catalog.extension(asked.containing_type, asked.extension_number)
                missing = f"no extension {asked.extension_number} of {asked.containing_type!r}"
                self._files(response, file, missing, sent)
            case "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                if not catalog.has_message(name):
                    raise _NotFoundError(f"no message type {name!r}")
                response.all_extension_numbers_response.base_type_name = name
                numbers = catalog.extension_numbers(name)
                response.all_extension_numbers_response.extension_number.extend(numbers)
            case _:
                _refuse(response, grpc.StatusCode.INVALID_ARGUMENT, "the request asks for nothing")

    @staticmethod
    def _files(response: Any, file: File | None, missing: str, sent: set[File]) -> None:
        """The file and all it imports, but for those that this stream has sent."""
        if file is None:
            raise _NotFoundError(missing)
        size = 0
        for one in _breadth_first(file):
            if one is not file and one in sent:
                continue
            data = one.data
            size += len(data)
            if one is not file and size > _MAX_FILES:
                break  # the client asks for the rest by name
            sent.add(one)
            response.file_descriptor_response.file_descriptor_proto.append(data)


def _refuse(response: Any, code: grpc.StatusCode, message: str) -> None:
    response.error_response.error_code = code.value[0]
    response.error_response.error_message = message


def _breadth_first(file: File) -> Iterator[File]:
    seen = {file}
    todo = [file]
    for one in todo:
        yield one
        new = [other for other in one.imports() if other not in seen]
        seen.update(new)
        todo += new
