"""Records of calls that never were, for observers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

from dynserve import Kind, MethodInfo
from dynserve.identity import Identity
from dynserve.observer import CallRecord, Observer
from dynserve.testing import FakeAsyncContext, FakeContext
from tests.echo import PATHS, schema

__all__ = ["METADATA", "method_of", "record_of", "seen"]

METADATA = (("x-request-id", "r-1"), ("user-agent", "grpc-python/1.85.1 (linux)"))


def method_of(kind: Kind) -> MethodInfo:
    """The method of the echo service that is of this kind."""
    return schema.method(PATHS[kind])


def record_of(
    code: grpc.StatusCode | None = grpc.StatusCode.OK,
    *,
    kind: Kind = Kind.UNARY_UNARY,
    path: str = "",
    metadata: Iterable[tuple[str, str | bytes]] = METADATA,
    peer: str = "ipv4:127.0.0.1:50000",
    identity: str = "",
    is_async: bool = False,
    **values: Any,
) -> CallRecord:
    """A call that has ended; of a method that is not there where a path is given."""
    method = None if path else method_of(kind)
    make: Any = FakeAsyncContext if is_async else FakeContext
    context = make(method, peer=peer)
    # Not given to the context, which would check it: what a peer sends, nobody has checked.
    context.invocation_metadata = lambda: tuple(metadata)
    if identity:
        context.identity = Identity(identity, "bearer")
    record = CallRecord(path or method_of(kind).path, method, context)
    record.code = code
    given = {"seconds": 0.0125, "request_messages": 1, "request_bytes": 10} | values
    for name, value in given.items():
        setattr(record, name, value)
    return record


def seen(observer: Observer, *records: CallRecord) -> None:
    """Have an observer see these calls, one after the other."""
    for record in records:
        observer.end(record, observer.begin(record))
