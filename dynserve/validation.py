"""Enforces the rules of buf.validate that a .proto states of its messages (https://protovalidate.com).

protovalidate 2 takes the messages of a private pool as they are. What it compiles of rules it keeps
by the full name of the message type, whatever pool that is of, so every schema needs an engine of
its own: with one for two schemas, types of one name would be held to the rules that came first.

What a peer can make it do is bounded. One packed byte can be one violation, and each takes 4 KB of
memory, so the first is looked for alone, and the others only in a message that is small. Details
travel in a trailer, which clients refuse beyond 8 KiB: text and details together stay below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import EncodeError, Message

from dynserve.errors import DescriptorError, DynserveError
from dynserve.schema.schema import Schema
from dynserve.status import StatusError

__all__ = ["Validator"]

Check: TypeAlias = Callable[[Message], None]
Descriptor: TypeAlias = Any  # of either of protobuf's implementations

# The number of buf.validate's extensions of all three, which nobody else may use:
# https://github.com/protocolbuffers/protobuf/blob/main/docs/options.md
_RULES = 1159
_EXTENDED = tuple(f"google.protobuf.{name}Options" for name in ("Message", "Field", "Oneof"))
_TAG = bytes((_RULES << 3 & 0x7F | 2 | 0x80, _RULES >> 4))  # of it, in serialised options
_VIOLATIONS = "buf.validate.Violations"
_MAX_SEARCHED = 4096  # bytes of a message in which all violations are looked for
_MAX_DETAILS = 3000  # bytes of all details; in base64 they are a third more
# Characters in the text of the status of where a violation is, and of what it says. One can take
# twelve bytes there, and the details have the text once more.
_MAX_PATH, _MAX_SAID = 80, 120


class Validator:
    """Holds the messages of one schema to the rules in it; safe to use from several threads.

    Args:
        schema: where the message classes are from.

    Raises:
        DynserveError: protovalidate is not installed.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._native = _native()
        self._collect: Callable[..., list[Any]] = self._native.Validator().collect_violations
        self._is_ruled: dict[str, bool] = {}  # by a type's full name: whether it has rules itself
        self._prepared: set[str] = set()  # many methods share their types
        # A descriptor set may have come without what no rule names.
        self._violations: Any = (
            schema.message(_VIOLATIONS) if schema.has_message(_VIOLATIONS) else None
        )
        self._has_rules = any(_RULES in schema.index.extensions(name) for name in _EXTENDED)

    def check_of(self, message: type[Message]) -> Check | None:
        """What checks the messages of a class, as :meth:`check` does.

        None where no rule can ever apply: neither the type nor any that it can hold has one. Those
        that can are compiled now, as by :meth:`prepare`.

        Raises:
            DescriptorError: rules that do not compile, all of them.
        """
        held = list(self._reachable([message.DESCRIPTOR])) if self._has_rules else []
        if not any(map(self._has_own_rule, held)):
            return None
        self.prepare([message])
        can_be_incomplete = any(field.is_required for one in held for field in one.fields)
        return self.check if can_be_incomplete else self._check_rules

    def check(self, message: Message) -> None:
        """Let a message pass that keeps all rules, and has the fields that proto2 calls required.

        Raises:
            StatusError: INVALID_ARGUMENT; the text has the first violation and counts the others,
                the details are a ``buf.validate.Violations`` and a ``google.rpc.BadRequest``.
            DescriptorError: a rule does not compile; :meth:`check_of` finds that before any call.
            protovalidate.EvaluationError: a rule has no value for this message: it divides by 0, …
        """
        if not message.IsInitialized():  # expressions get what they are about encoded
            raise _incomplete(message)
        self._check_rules(message)

    def _check_rules(self, message: Message) -> None:
        try:
            first = self._collect(message, fail_fast=True)
        except self._native.CompilationError as error:
            file = message.DESCRIPTOR.file.name
            raise DescriptorError(file, _of_rule(message.DESCRIPTOR, error)) from error
        if first:
            is_small = message.ByteSize() <= _MAX_SEARCHED
            raise self._refusal(self._collect(message) if is_small else first, is_small)

    def prepare(self, messages: Iterable[type[Message]]) -> None:
        """Compile every rule that can apply to messages of these classes.

        Raises:
            DescriptorError: rules that do not compile, all of them.
        """
        if not self._has_rules:
            return
        wrong = []
        for descriptor in self._reachable(message.DESCRIPTOR for message in messages):
            if descriptor.full_name not in self._prepared and self._has_own_rule(descriptor):
                # An empty message is enough: all rules of its own are compiled before one is tried.
                # Those of what it holds may not be, so each type has its turn.
                try:
                    self._collect(self._schema.message(descriptor.full_name)())
                except self._native.CompilationError as error:
                    wrong.append((descriptor.file.name, _of_rule(descriptor, error)))
                    continue
                except (EncodeError, self._native.EvaluationError):
                    pass  # it need not make sense
            self._prepared.add(descriptor.full_name)
        if wrong:
            more = "".join(f"\n{file}: {problem}" for file, problem in wrong[1:])
            raise DescriptorError(wrong[0][0], wrong[0][1] + more)

    def _reachable(self, start: Iterable[Descriptor]) -> Iterator[Descriptor]:
        """These types and all that they can hold, in extensions too, each once."""
        todo = list(start)
        seen = {descriptor.full_name for descriptor in todo}
        while todo:
            descriptor = todo.pop()
            yield descriptor
            extensions = self._schema.index.extensions(descriptor.full_name).values()
            # protovalidate 2.0 looks into extensions, and 2.1 does not
            others = (self._schema.extension(extension.name) for extension in extensions)
            for field in (*descriptor.fields, *others):
                held = field.message_type
                if held is not None and held.full_name not in seen:
                    seen.add(held.full_name)
                    todo.append(held)

    def _has_own_rule(self, descriptor: Descriptor) -> bool:
        name = descriptor.full_name
        if name not in self._is_ruled:
            elements = (descriptor, *descriptor.fields, *descriptor.oneofs)
            # The classes of options are of another pool, to which the rules are unknown bytes. What
            # is alike by chance, in a text, costs no more than a message that is checked in vain.
            self._is_ruled[name] = any(
                element.has_options and _TAG in element.GetOptions().SerializeToString()
                for element in elements
            )
        return self._is_ruled[name]

    def _refusal(self, found: list[Any], are_all: bool) -> StatusError:
        from google.rpc.error_details_pb2 import BadRequest

        bad = BadRequest()
        kept, size = [], 0
        for violation in found:
            proto = violation.proto
            where = path_of(proto)
            field = BadRequest.FieldViolation(field=where, description=_text_of(proto))
            size += field.ByteSize() + (len(proto.to_binary()) if self._violations else 0)
            if size > _MAX_DETAILS:
                break
            bad.field_violations.append(field)
            kept.append(proto)
        details: list[Message] = [bad] if kept else []
        if kept and self._violations is not None:
            data = self._native.ViolationsPb(violations=kept).to_binary()
            details.insert(0, self._violations.FromString(data))
        text = _summary(found, are_all)
        return StatusError(grpc.StatusCode.INVALID_ARGUMENT, text, details=details)


def path_of(violation: Any) -> str:
    """Where a violation is: ``items[3].name``, ``labels["a"].size``; of the whole message ''.

    As https://github.com/bufbuild/protovalidate writes it, and ``google.rpc.BadRequest`` wants it.
    """
    if violation.field is None:
        return ""
    steps = []
    for element in violation.field.elements:
        key = element.subscript
        steps.append(element.field_name if key is None else f"{element.field_name}[{_key(key)}]")
    return ".".join(steps)


def _key(subscript: Any) -> str:
    value = subscript.value
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value).lower()  # true and false are not Python's


def _text_of(violation: Any) -> str:
    """What a rule says, or, where it says nothing, what it is called."""
    text = violation.message or violation.rule_id or "breaks a rule"
    return f"the key {text}" if violation.for_key else str(text)


def _summary(found: list[Any], are_all: bool) -> str:
    """One line: the first violation, and how many there are beside it."""
    first = found[0].proto
    where = path_of(first)
    text = _line(_text_of(first), _MAX_SAID)
    text = f"{_line(where, _MAX_PATH)}: {text}" if where else text
    return text + _beside(len(found) - 1) if are_all else f"{text}, and maybe others"


def _beside(others: int) -> str:
    return f", and {others} other{'s' if others > 1 else ''}" if others else ""


def _line(text: str, size: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= size else line[: size - 1] + "…"


def _incomplete(message: Message) -> StatusError:
    """For what lacks a required field: parsing takes it, encoding does not."""
    if len(message.SerializePartialToString()) > _MAX_SEARCHED:  # each byte can be one
        return StatusError(grpc.StatusCode.INVALID_ARGUMENT, "a required field is missing")
    from google.rpc.error_details_pb2 import BadRequest

    missing: list[str] = message.FindInitializationErrors()  # type: ignore[attr-defined]
    where = _line(missing[0], _MAX_PATH)
    text = f"{where}: is required{_beside(len(missing) - 1)}"
    violation = BadRequest.FieldViolation(field=where, description="is required")
    details = [BadRequest(field_violations=[violation])]
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, text, details=details)


def _of_rule(descriptor: Descriptor, error: Exception) -> str:
    return f"a rule of {descriptor.full_name} does not compile: {error}"


def _native() -> Any:
    try:
        import protovalidate

        _ = protovalidate.ViolationsPb, protovalidate.EvaluationError
    except (ImportError, AttributeError) as error:
        raise DynserveError(
            "validation needs the package protovalidate, 2.0 or later;"
            " write `pip install 'dynserve[validate]'`"
        ) from error
    return protovalidate
