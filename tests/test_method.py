"""dynserve.method."""

from __future__ import annotations

import copy

import pytest

from dynserve import Kind, Schema


@pytest.mark.parametrize(
    ("kind", "request_streaming", "response_streaming", "text"),
    [
        (Kind.UNARY_UNARY, False, False, "unary-unary"),
        (Kind.UNARY_STREAM, False, True, "unary-stream"),
        (Kind.STREAM_UNARY, True, False, "stream-unary"),
        (Kind.STREAM_STREAM, True, True, "stream-stream"),
    ],
)
def test_a_kind_is_two_booleans(
    kind: Kind, request_streaming: bool, response_streaming: bool, text: str
) -> None:
    """A kind is found by its two booleans, gives them back and is written as gRPC writes it."""
    assert Kind((request_streaming, response_streaming)) is kind
    assert (kind.request_streaming, kind.response_streaming) == kind.value
    assert str(kind) == text


def test_a_method_knows_its_names() -> None:
    """A method has a path for HTTP/2, a protobuf name, and the name that people write."""
    schema = Schema.load(
        'syntax = "proto3"; package p; message M {} service S { rpc Get(M) returns (stream M); }'
    )
    method = schema.method("p.S/Get")
    assert (method.service, method.name, method.kind) == ("p.S", "Get", Kind.UNARY_STREAM)
    assert method.path == "/p.S/Get"
    assert method.full_name == "p.S.Get"
    assert str(method) == "p.S/Get"


def test_the_facts_cannot_be_changed() -> None:
    """What is known of a method and a service is frozen: everybody shares it."""
    schema = Schema.load('syntax = "proto3"; message M {} service S { rpc Get(M) returns (M); }')
    service = schema.service("S")
    method = service.methods["Get"]
    with pytest.raises(AttributeError) as caught:
        method.name = "Put"
    assert str(caught.value) == "a MethodInfo is shared by all: 'name' cannot be set"
    with pytest.raises(AttributeError) as caught:
        del service.name
    assert str(caught.value) == "a ServiceInfo is shared by all: 'name' cannot be deleted"
    assert [repr(method), repr(service)] == [
        "<MethodInfo S/Get: unary-unary>",
        "<ServiceInfo S: Get>",
    ]
    with pytest.raises(TypeError):
        service.methods["Put"] = service.methods["Get"]  # type: ignore[index]


def test_a_copy_of_a_method_is_the_method() -> None:
    """They are told apart by identity."""
    schema = Schema.load('syntax = "proto3"; message M {} service S { rpc Get(M) returns (M); }')
    service = schema.service("S")
    assert copy.copy(service) is service
    assert copy.deepcopy([service.methods["Get"]]) == [schema.method("S/Get")]
