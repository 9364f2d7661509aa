"""A server that tells of itself as it is told to: not every one does it as dynserve's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from dynserve import Schema
from dynserve.schema.symbols import symbols_of

__all__ = ["FakeReflection", "compiled"]

Files: TypeAlias = Mapping[str, bytes]

NOT_FOUND = 5


def compiled(folder: Path, sources: Mapping[str, str]) -> dict[str, bytes]:
    """The serialised descriptors of .proto texts by file name, those of imports too."""
    for name, text in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    index = Schema.load(folder, include=[folder], cache=False).index
    return {name: index.raw(name) for name in index.files}


class FakeReflection(grpc.GenericRpcHandler):
    """Tells of ``files``, one at a time, and of what was asked in ``asked``.

    Args:
        files: what it has, by name.
        versions: of the protocol that it speaks.
        change: gets each answer before it is sent, and may change it or raise.
    """

    def __init__(
        self,
        files: Files,
        versions: tuple[str, ...] = ("v1", "v1alpha"),
        change: Callable[[Any, Any], None] = lambda request, answer: None,
    ) -> None:
        self.asked: list[str] = []
        self.metadata: list[dict[str, Any]] = []
        self._files = {name: FileDescriptorProto.FromString(data) for name, data in files.items()}
        self._paths = [
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            for version in versions
        ]
        self._change = change

    def service(self, handler_call_details: Any) -> Any:
        """As grpc has it."""
        if handler_call_details.method not in self._paths:
            return None
        return grpc.stream_stream_rpc_method_handler(
            self._answers, ServerReflectionRequest.FromString, lambda answer: answer
        )

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The address."""
        with ThreadPoolExecutor(4) as pool:
            server = grpc.server(pool)
            server.add_generic_rpc_handlers([self])
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            try:
                yield f"127.0.0.1:{port}"
            finally:
                server.stop(None).wait()

    def _answers(self, requests: Iterator[Any], context: Any) -> Iterator[bytes]:
        self.metadata.append(dict(context.invocation_metadata()))
        for request in requests:
            answer = ServerReflectionResponse(original_request=request)
            self._answer(request, answer)
            self._change(request, answer)
            yield answer.SerializeToString()

    def _answer(self, request: Any, answer: Any) -> None:
        kind = request.WhichOneof("message_request")
        value = getattr(request, kind)
        if kind == "file_containing_extension":
            value = f"{value.containing_type} {value.extension_number}"
        self.asked.append(f"{kind} {value}")
        match kind:
            case "list_services":
                for file in self._files.values():
                    for service in file.service:
                        name = f"{file.package}.{service.name}"
                        answer.list_services_response.service.add(name=name)
            case "file_by_filename":
                self._give(answer, self._files.get(value))
            case "file_containing_symbol":
                self._give(answer, self._find(lambda file: value in set(symbols_of(file))))
            case "file_containing_extension":
                self._give(answer, self._find(lambda file: value in dict(_extensions(file))))
            case "all_extension_numbers_of_type":
                numbers = [
                    int(extension.partition(" ")[2])
                    for file in self._files.values()
                    for extension, _ in _extensions(file)
                    if extension.partition(" ")[0] == value
                ]
                answer.all_extension_numbers_response.base_type_name = value
                answer.all_extension_numbers_response.extension_number.extend(numbers)

    def _find(self, has: Callable[[Any], bool]) -> Any:
        return next((file for file in self._files.values() if has(file)), None)

    @staticmethod
    def _give(answer: Any, file: Any) -> None:
        if file is None:
            answer.error_response.error_code = NOT_FOUND
            answer.error_response.error_message = "not here"
        else:
            answer.file_descriptor_response.file_descriptor_proto.append(file.SerializeToString())


def _extensions(file: Any) -> Iterator[tuple[str, str]]:
    """``"pkg.Type 100"`` and the file's name, of each extension in it."""
    todo = [file]
    while todo:
        holder = todo.pop()
        for extension in holder.extension:
            yield f"{extension.extendee.lstrip('.')} {extension.number}", file.name
        todo += holder.message_type if holder is file else holder.nested_type
