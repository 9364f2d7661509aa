"""A private descriptor pool that builds a file of an index when something in it is asked for."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from dynserve.errors import DescriptorError

from .index import Index

if TYPE_CHECKING:
    from google._upb import _message as upb
    from google.protobuf import descriptor
    from google.protobuf.descriptor import EnumDescriptor, ServiceDescriptor

    # The pure-Python and the upb class share an interface but no base class.
    Descriptor = descriptor.Descriptor | upb.Descriptor
    FieldDescriptor = descriptor.FieldDescriptor | upb.FieldDescriptor

__all__ = ["LazyPool"]


class LazyPool:
    """Finds descriptors by name; raises KeyError for what is not in the index.

    protobuf has a pool of its own that asks a database; loading what is needed before asking a
    plain pool keeps source locations out, holds one lock over the whole of it, and gives errors a
    file name. The ``Find…`` methods have the names of ``DescriptorPool``, so that ``json_format``
    takes this in its place.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._pool = descriptor_pool.DescriptorPool()
        self._lock = threading.RLock()
        self._built: set[str] = set()
        self._classes: dict[str, type[Message]] = {}  # of all that a type asked for can hold

    def FindMessageTypeByName(self, full_name: str) -> Descriptor:
        """The descriptor of the message type; KeyError where there is none.

        Its extensions are built: this is what ``json_format`` asks for the content of an Any.
        """
        self._need(full_name)
        descriptor = self._pool.FindMessageTypeByName(full_name)
        self._make_ready(descriptor)
        return descriptor

    def FindExtensionByName(self, full_name: str) -> FieldDescriptor:
        """The descriptor of the extension; KeyError where there is none."""
        self._need(full_name)
        return self._pool.FindExtensionByName(full_name)

    def FindEnumTypeByName(self, full_name: str) -> EnumDescriptor:
        """The descriptor of the enum; KeyError where there is none."""
        self._need(full_name)
        return self._pool.FindEnumTypeByName(full_name)

    def FindServiceByName(self, full_name: str) -> ServiceDescriptor:
        """The descriptor of the service; KeyError where there is none."""
        self._need(full_name)
        return self._pool.FindServiceByName(full_name)

    def message_class(self, descriptor: Descriptor) -> type[Message]:
        """The class of a message type, ready to parse: extensions of all it can hold are built."""
        self._make_ready(descriptor)
        return self._classes[descriptor.full_name]

    def _need(self, symbol: str) -> None:
        file = self._index.file_of(symbol)
        if file is None:
            raise KeyError(f"no symbol {symbol!r} in the schema")
        self.build(file)

    def build(self, name: str) -> None:
        """Build a file and all that it imports; KeyError where there is none of that name."""
        if name in self._built:
            return
        with self._lock:
            for file in self._in_order(name):
                try:
                    self._pool.AddSerializedFile(self._index.stripped(file))
                except TypeError as error:
                    problem = str(error).removeprefix(
                        "Couldn't build proto file into descriptor pool: "
                    )
                    raise DescriptorError(file, f"cannot be built: {problem}") from error
                self._built.add(file)

    def _in_order(self, name: str) -> list[str]:
        """The file and what it imports that is not built, imports first."""
        ordered: dict[str, None] = {}
        path: dict[str, None] = {}  # files that are open, outermost first
        todo: list[tuple[str, bool]] = [(name, False)]
        while todo:
            file, done = todo.pop()
            if done:
                del path[file]
                ordered[file] = None
            elif file in path:
                cycle = " -> ".join([*list(path)[list(path).index(file) :], file])
                raise DescriptorError(file, f"imports itself: {cycle}")
            elif file not in ordered and file not in self._built:
                path[file] = None
                todo.append((file, True))
                todo += [(other, False) for other in reversed(self._index.dependencies(file))]
        return list(ordered)

    def _make_ready(self, descriptor: Descriptor) -> None:
        """Build the extensions of this type and of all types that it can hold, and their classes.

        A message is parsed with the extensions that its pool has at that moment; one that comes
        later would find its data among the unknown fields. A class that nobody holds is garbage to
        Python while protobuf still finds it by its address, and gives it to a thread that asks in
        the middle of the collection: it crashes. So every class holds all the others, for as long
        as one of them is in use, the schema or no schema.
        """
        if descriptor.full_name in self._classes:
            return
        with self._lock:
            todo: deque[Any] = deque([descriptor])
            made: dict[str, Any] = {}
            while todo:
                message = todo.popleft()
                if message.full_name in self._classes or message.full_name in made:
                    continue
                made[message.full_name] = _class_of(message)
                made[message.full_name]._dynserve_classes = self._classes
                todo += [field.message_type for field in message.fields if field.message_type]
                for extension in list(self._index.extensions(message.full_name).values()):
                    field = self.FindExtensionByName(extension.name)
                    if field.message_type:
                        todo.append(field.message_type)
            self._classes.update(made)


def _class_of(descriptor: Any) -> type[Message]:
    return message_factory.GetMessageClass(descriptor)
