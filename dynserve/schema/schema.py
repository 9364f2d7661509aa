"""Schema: the services and message types of one set of sources, in a pool of their own."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

from dynserve.errors import (
    DescriptorError,
    Diagnostic,
    SourceError,
    SymbolError,
)
from dynserve.method import Kind, MethodInfo, ServiceInfo

from .compiled import add_compiled
from .descriptors import parse_file
from .index import Index
from .pool import LazyPool
from .sources import DescriptorSet, ProtoSource, Source, collect
from .toolchain import Limits

if TYPE_CHECKING:
    from .declarations import Declarations
    from .values import Converter

__all__ = ["Schema"]

_LIMITS = Limits()
_MAX_DECLARATIONS = 8  # files


class Schema:
    """What .proto files declare, with nothing built before it is asked for.

    Every schema has a descriptor pool of its own, so two of them may hold files, packages and types
    of the same names. Made by :meth:`load`. Safe to use from several threads.

    ``warnings`` are the compiler's, empty where the compiled set came from the cache.
    """

    def __init__(
        self,
        index: Index,
        declared: Iterable[str],
        label: str = "schema",
        warnings: Sequence[Diagnostic] = (),
    ) -> None:
        """``declared`` names the files that were asked for; others are there as their imports."""
        self.index = index
        self.label = label
        self.warnings = tuple(warnings)
        self._declared = tuple(dict.fromkeys(declared))
        self._pool = LazyPool(index)
        self._classes: dict[str, type[Message]] = {}
        self._services: dict[str, ServiceInfo] = {}

    @classmethod
    def load(
        cls,
        *sources: Source,
        include: Sequence[str | os.PathLike[str]] = (),
        cache: bool = True,
        search: Sequence[str | os.PathLike[str]] = (),
        limits: Limits = _LIMITS,
    ) -> Schema:
        """Compile or open the sources.

        Args:
            sources: paths of .proto files, folders, globs or descriptor sets;
                ``package:NAME/PATH``; .proto text; a ``FileDescriptorSet`` or its bytes; generated
                ``_pb2`` modules. Several may be mixed.
            include: the import roots, searched in this order. Without them the roots are inferred.
            cache: whether compiled sets are kept in the user's cache directory
                (``$DYNSERVE_CACHE_DIR`` names another).
            search: folders in which a relative source is looked up after the working directory.
            limits: what the compiler may use.

        Raises:
            SourceError: a source is missing or cannot be read.
            CompileError: the sources have errors; every diagnostic is in it.
            CompilerError: the compiler crashed or exceeded its limits.
            DescriptorError: a descriptor set is damaged, incomplete or in conflict with another.
        """
        if not sources:
            raise SourceError("schema", "no source was given")
        protos, sets = collect(sources, search)
        index = Index()
        declared: list[str] = []
        warnings: list[Diagnostic] = []
        if protos:
            roots = [os.path.abspath(root) for root in include]
            wanted, warnings = add_compiled(index, "compiled sources", protos, roots, cache, limits)
            declared += wanted
        for item in sets:
            declared += index.add_set(item.label, item.data)
        _complete(index, sets, cache, limits)
        return cls(index, declared, _label(protos, sets), warnings)

    # ---- what is in it

    @property
    def declared_files(self) -> tuple[str, ...]:
        """The files that were asked for; those they import are not among them."""
        return self._declared

    @property
    def declared_services(self) -> tuple[str, ...]:
        """The full names of the services in the files that were asked for, sorted."""
        declared = set(self._declared)
        return tuple(sorted(name for name, file in self.index.services.items() if file in declared))

    @property
    def services(self) -> tuple[str, ...]:
        """The full names of all services, those of imported files too, sorted."""
        return tuple(sorted(self.index.services))

    def method_kinds(self, service: str) -> dict[str, Kind]:
        """The names and kinds of a service's methods in the order of the file; builds nothing.

        Raises:
            SymbolError: there is no such service.
        """
        file = parse_file(self.index.stripped(self._service_file(service)))
        name = service.rpartition(".")[2]
        return {
            method.name: Kind((method.client_streaming, method.server_streaming))
            for declared in file.service
            if declared.name == name
            for method in declared.method
        }

    def service(self, name: str) -> ServiceInfo:
        """A service by its full name.

        Raises:
            SymbolError: there is no such service.
            DescriptorError: its file cannot be built.
        """
        if name not in self._services:
            described = self._describe(name, self._service_file(name))
            return self._services.setdefault(name, described)  # another thread may have been first
        return self._services[name]

    def method(self, path: str) -> MethodInfo:
        """A method by ``pkg.Service/Method`` or ``/pkg.Service/Method``.

        Raises:
            SymbolError: there is no such service, or no such method in it.
        """
        service, _, name = path.removeprefix("/").rpartition("/")
        methods = self.service(service).methods
        if name not in methods:
            raise SymbolError("method", path, (f"{service}/{other}" for other in methods))
        return methods[name]

    def message(self, name: str) -> type[Any]:
        """The class of a message type by its full name; the same class every time.

        Typed as ``Any``: no checker can know the fields of what is compiled at run time.

        Raises:
            SymbolError: there is no such message type.
            DescriptorError: its file cannot be built.
        """
        if name not in self._classes:
            try:
                descriptor = self._pool.FindMessageTypeByName(name)
            except KeyError:
                raise SymbolError("message type", name, self.index.symbols()) from None
            self._classes[name] = self._pool.message_class(descriptor)
        return self._classes[name]

    def has_message(self, name: str) -> bool:
        """Whether there is a message type of that name."""
        try:
            self._pool.FindMessageTypeByName(name)
        except KeyError:
            return False
        return True

    def enum(self, name: str) -> EnumTypeWrapper:
        """An enum by its full name: ``.Value("NAME")``, ``.Name(number)``, ``.items()``.

        Raises:
            SymbolError: there is no such enum.
        """
        try:
            return EnumTypeWrapper(self._pool.FindEnumTypeByName(name))
        except KeyError:
            raise SymbolError("enum", name, self.index.symbols()) from None

    def extension(self, name: str) -> Any:
        """The handle of an extension by its full name, for ``message.Extensions[handle]``.

        Raises:
            SymbolError: there is no such extension.
        """
        try:
            return self._pool.FindExtensionByName(name)
        except KeyError:
            raise SymbolError("extension", name, self.index.symbols()) from None

    def comments(self, file: str) -> Mapping[str, str]:
        """The comments of a file by the full names of what they stand in front of.

        Raises:
            KeyError: there is no such file.
            DescriptorError: its source locations are damaged.
        """
        return self._declarations(file).comments

    def build(self) -> None:
        """Build every file now: what cannot be built is found, and nothing is left to be lazy.

        Raises:
            DescriptorError: a file cannot be built.
        """
        for file in self.index.files:
            self._pool.build(file)

    # ---- values

    def convert(self, value: object, message: type[Message]) -> Message:
        """A Python value as a message of the class ``message``; see :mod:`dynserve.schema.values`.

        Raises:
            MessageError: the value does not fit; the error names the field.
        """
        if type(value) is message:  # what converts others is not even loaded for it
            return value
        return self._converter.convert(value, message)

    def to_dict(self, message: Message, **options: Any) -> dict[str, Any]:
        """A message as the dict of its JSON form; ``Any`` is resolved in this schema.

        ``options`` are those of ``google.protobuf.json_format.MessageToDict``, and
        ``allow_unknown_any``: an ``Any`` of a type that is not in the schema is shown by its name.

        Raises:
            MessageError: it has no JSON form: an ``Any`` holds a type that is not in the schema, …
        """
        options.setdefault("preserving_proto_field_name", True)
        return self._converter.to_dict(message, options)

    def to_json(self, message: Message, **options: Any) -> str:
        """A message in protobuf's JSON form; ``Any`` is resolved in this schema.

        ``options`` are those of ``google.protobuf.json_format.MessageToJson``, and
        ``allow_unknown_any`` as for :meth:`to_dict`.

        Raises:
            MessageError: as for :meth:`to_dict`.
        """
        return self._converter.to_json(message, options)

    def from_json(self, text: str | bytes, message: type[Message]) -> Message:
        """A message of the class ``message`` from its JSON form.

        Raises:
            MessageError: the text is not JSON, or does not fit.
        """
        return self._converter.from_json(text, message)

    def from_text(self, text: str, message: type[Message]) -> Message:
        """A message of the class ``message`` from protobuf's text format.

        Raises:
            MessageError: the text is not of that form, or does not fit.
        """
        return self._converter.from_text(text, message)

    def to_text(self, message: Message, **options: Any) -> str:
        """A message in protobuf's text format; ``Any`` is resolved in this schema.

        ``options`` are those of ``google.protobuf.text_format.MessageToString``.
        """
        return self._converter.to_text(message, options)

    # ---- inside

    @functools.cached_property
    def _converter(self) -> Converter:
        from .values import Converter  # a server whose handlers make messages needs none

        return Converter(self._pool)

    def _service_file(self, name: str) -> str:
        try:
            return self.index.services[name]
        except KeyError:
            raise SymbolError("service", name, self.index.services) from None

    @functools.cached_property
    def _declarations(self) -> Callable[[str], Declarations]:
        """By file; of the last few, for services are asked for one after the other."""
        from .declarations import Declarations  # served without comments and options

        return functools.lru_cache(_MAX_DECLARATIONS)(functools.partial(Declarations, self))

    def _describe(self, name: str, file: str) -> ServiceInfo:
        descriptor = self._pool.FindServiceByName(name)

        def declared() -> Declarations:
            return self._declarations(file)

        methods = {
            method.name: MethodInfo(
                service=name,
                name=method.name,
                kind=Kind((method.client_streaming, method.server_streaming)),
                request=self._pool.message_class(method.input_type),
                response=self._pool.message_class(method.output_type),
                declared=declared,
            )
            for method in descriptor.methods
        }
        return ServiceInfo(name, MappingProxyType(methods), file, declared)

    def __repr__(self) -> str:
        return f"<Schema {self.label}: {len(self.index.services)} services>"


def _label(protos: Sequence[ProtoSource], sets: Sequence[DescriptorSet]) -> str:
    names = [*map(str, protos), *(item.label for item in sets)]
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


def _complete(index: Index, sets: Sequence[DescriptorSet], cache: bool, limits: Limits) -> None:
    """Add well-known and common files that the sets import but do not carry."""
    missing = index.missing()
    if not missing:
        return
    from .imports import builtin_roots, find_installed  # seldom needed

    installed = [find_installed(name) for name in missing]
    found = [proto for proto in installed if proto is not None]
    if found:
        add_compiled(index, "installed protos", found, builtin_roots(), cache, limits)
    for name, importers in index.missing().items():
        label = sets[0].label if len(sets) == 1 else "descriptor sets"
        raise DescriptorError(
            label,
            f"{importers[0]!r} imports {name!r}, which is missing"
            " (make the set with `protoc --include_imports` or `buf build`)",
        )
