"""Binding: which method a handler serves, what does not fit, and what a call of nothing gets."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from dynserve import App, BindError, Schema, SourceError
from dynserve.binding import bind
from dynserve.callables import place_of
from dynserve.routes import LateService, Routes
from dynserve.service import Service
from dynserve.unit import Unit

from .conftest import Serve

GUIDE = """
syntax = "proto3";
package guide;
message Point { int32 x = 1; }
service Guide {
  rpc GetFeature(Point) returns (Point);
  rpc ListFeatures(Point) returns (stream Point);
  rpc RecordRoute(stream Point) returns (Point);
  rpc RouteChat(stream Point) returns (stream Point);
  rpc GetHTTPStatus(Point) returns (Point);
}
service Other {
  rpc GetFeature(Point) returns (Point);
  rpc Ping(Point) returns (Point);
}
"""
guide = Schema.load(GUIDE, cache=False)


def get_feature(request: Any) -> Any:
    return request


def list_features(request: Any) -> Iterator[Any]:
    yield request


def record_route(requests: Iterator[Any]) -> Any:
    return sum(requests)


def record_routes(request: Any) -> Any:
    return request


def nothing_like_it(request: Any) -> Any:
    return request


def ping(request: Any) -> Any:
    return request


def too_many(request: Any, context: Any, more: Any) -> Any:
    return request, context, more


def keyword_only(request: Any, *, retries: int) -> Any:
    return request, retries


def no_parameter() -> Any:
    return {}


class Handler:
    def __call__(self, request: Any) -> Any:
        return request


class Empty:
    pass


class Odd:
    GetFeature = "not a method"


def routes_of(app: App) -> Routes:
    return bind(app.units())


def problems_of(*apps: App) -> list[str]:
    """What binding these apps in one server finds wrong."""
    with pytest.raises(BindError) as caught:
        bind(unit for app in apps for unit in app.units())
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


# ---- which method a handler serves


@pytest.mark.parametrize(
    "name",
    [
        "list_features",
        "ListFeatures",
        "listFeatures",
        "LISTFEATURES",
        "list__features_",
    ],
)
def test_a_handlers_own_name_finds_its_method(name: str) -> None:
    """Bare, the handler's name is taken, whatever its case and underscores."""

    def handler(request: Any) -> Iterator[Any]:
        yield request

    handler.__name__ = name
    for app in (App(schema=guide), App(schema=guide)):
        app.service("guide.Guide").rpc(handler)
        assert dict(routes_of(app).services["guide.Guide"].handlers) == {
            "ListFeatures": place_of(handler)
        }


def test_acronyms_are_found_too() -> None:
    """get_http_status serves GetHTTPStatus."""
    app = App(schema=guide)

    @app.rpc
    def get_http_status(request: Any) -> Any:
        return request

    assert list(routes_of(app).services["guide.Guide"].handlers) == ["GetHTTPStatus"]


def test_the_exact_name_wins() -> None:
    """Of two methods that differ in case only, the handler of the exact name is meant."""
    app = App(
        """
        syntax = "proto3";
        message M {}
        service S {
          rpc Do_It(M) returns (M);
          rpc DoIt(M) returns (M);
        }
        """
    )

    @app.rpc
    def DoIt(request: Any) -> Any:
        return request

    assert dict(routes_of(app).services["S"].handlers) == {"DoIt": place_of(DoIt)}


def test_order_of_registration_does_not_matter() -> None:
    """What is registered where, and when, comes to the same routes."""
    one, two = App(schema=guide), App(schema=guide)
    one.add(get_feature, "guide.Guide/GetFeature")
    one.service("guide.Guide").add(list_features)
    one.fallback(nothing_like_it)
    two.fallback(nothing_like_it)
    service = two.service("guide.Guide")
    service.add(list_features)
    two.service("guide.Guide").add(get_feature)
    first, second = (
        {name: dict(bound.handlers) for name, bound in routes_of(app).services.items()}
        for app in (one, two)
    )
    assert first == second
    assert first["guide.Guide"]["ListFeatures"] == place_of(list_features)


def test_routes_say_what_is_served() -> None:
    """The snapshot has every declared service, its handlers, its holes and the schemas."""
    app = App(schema=guide)
    app.add(ping)
    app.service("guide.Guide").add(get_feature)
    routes = routes_of(app)
    assert list(routes.services) == ["guide.Guide", "guide.Other"]
    assert routes.holes == [
        "guide.Guide/ListFeatures",
        "guide.Guide/RecordRoute",
        "guide.Guide/RouteChat",
        "guide.Guide/GetHTTPStatus",
        "guide.Other/GetFeature",
    ]
    assert list(routes.table) == ["/guide.Guide/GetFeature", "/guide.Other/Ping"]
    assert [service.schema for service in routes.services.values()] == [guide] * 2


def test_services_of_imported_files_are_served_when_they_have_handlers(tmp_path: Path) -> None:
    """What the sources import is not offered by itself, but can be implemented."""
    (tmp_path / "guide.proto").write_text(GUIDE)
    (tmp_path / "mine.proto").write_text('syntax = "proto3"; import "guide.proto";')
    app = App(tmp_path / "mine.proto")
    assert list(routes_of(app).services) == []
    app.service("guide.Other").add(ping)
    routes = routes_of(app)
    assert (list(routes.services), list(routes.table)) == (["guide.Other"], ["/guide.Other/Ping"])


# ---- what does not fit


def where(handler: Callable[..., Any]) -> str:
    return place_of(handler)


WRONG: dict[str, tuple[Callable[[App], object], list[str]]] = {
    "unknown service, near": (
        lambda app: app.add(get_feature, "guide.Guid/GetFeature"),
        [
            f"{where(get_feature)}: no service 'guide.Guid' in the schema;"
            " did you mean 'guide.Guide'?"
        ],
    ),
    "unknown service, nothing near": (
        lambda app: app.add(get_feature, "completely.different.Thing/GetFeature"),
        [f"{where(get_feature)}: no service 'completely.different.Thing' in the schema"],
    ),
    "unknown service with several handlers": (
        lambda app: [app.service("guide.Guid").rpc(h) for h in (get_feature, list_features)],
        [
            f"{where(get_feature)}: no service 'guide.Guid' in the schema;"
            " did you mean 'guide.Guide'?"
        ],
    ),
    "unknown service without a handler": (
        lambda app: app.service("guide.Guid"),
        ["no service 'guide.Guid' in the schema; did you mean 'guide.Guide'?"],
    ),
    "unknown service of a servicer": (
        lambda app: app.add_servicer(Empty(), "guide.Guid"),
        ["servicer Empty: no service 'guide.Guid' in the schema; did you mean 'guide.Guide'?"],
    ),
    "unknown method of a service": (
        lambda app: app.add(get_feature, "guide.Guide/GetFeatures"),
        [
            f"{where(get_feature)}: no method 'GetFeatures' in service 'guide.Guide';"
            " did you mean 'GetFeature' or 'ListFeatures'?"
        ],
    ),
    "method in the wrong case": (
        lambda app: app.add(get_feature, "guide.Guide/getfeature"),
        [
            f"{where(get_feature)}: no method 'getfeature' in service 'guide.Guide';"
            " did you mean 'GetFeature' or 'ListFeatures'?"
        ],
    ),
    "unknown method of any service": (
        lambda app: app.add(get_feature, "Pin"),
        [
            f"{where(get_feature)}: no method 'Pin' in any service of the schema;"
            " did you mean 'guide.Other/Ping'?"
        ],
    ),
    "a protobuf name in place of a path": (
        lambda app: app.add(ping, "guide.Other.Ping"),
        [
            f"{where(ping)}: no method 'guide.Other.Ping' in any service of the schema;"
            " did you mean 'guide.Other/Ping'?"
        ],
    ),
    "a handler's name near to a method": (
        lambda app: app.service("guide.Guide").add(record_routes),
        [
            f"{where(record_routes)}: no method 'record_routes' in service 'guide.Guide';"
            " did you mean 'RecordRoute'?"
        ],
    ),
    "a handler's name near to nothing": (
        lambda app: app.service("guide.Other").add(nothing_like_it),
        [
            f"{where(nothing_like_it)}: no method 'nothing_like_it' in service 'guide.Other';"
            " name one of 'GetFeature', 'Ping'"
        ],
    ),
    "ambiguous name": (
        lambda app: app.rpc(get_feature),
        [
            f"{where(get_feature)}: 'get_feature' is ambiguous;"
            " name one of 'guide.Guide/GetFeature', 'guide.Other/GetFeature'"
        ],
    ),
    "ambiguous exact name": (
        lambda app: app.rpc("GetFeature")(ping),
        [
            f"{where(ping)}: 'GetFeature' is ambiguous;"
            " name one of 'guide.Guide/GetFeature', 'guide.Other/GetFeature'"
        ],
    ),
    "wrong decorator for unary-unary": (
        lambda app: app.unary_stream("guide.Guide/GetFeature")(get_feature),
        [
            f"{where(get_feature)} is registered as unary-stream, but guide.Guide/GetFeature is"
            " unary-unary; use @unary_unary or @rpc"
        ],
    ),
    "wrong decorator for unary-stream": (
        lambda app: app.stream_unary("guide.Guide/ListFeatures")(list_features),
        [
            f"{where(list_features)} is registered as stream-unary, but guide.Guide/ListFeatures"
            " is unary-stream; use @unary_stream or @rpc"
        ],
    ),
    "wrong decorator for stream-unary": (
        lambda app: app.stream_stream("guide.Guide/RecordRoute")(record_route),
        [
            f"{where(record_route)} is registered as stream-stream, but guide.Guide/RecordRoute"
            " is stream-unary; use @stream_unary or @rpc"
        ],
    ),
    "wrong decorator for stream-stream": (
        lambda app: app.unary_unary("guide.Guide/RouteChat")(list_features),
        [
            f"{where(list_features)} is registered as unary-unary, but guide.Guide/RouteChat is"
            " stream-stream; use @stream_stream or @rpc"
        ],
    ),
    "generator for one response": (
        lambda app: app.add(list_features, "guide.Guide/GetFeature"),
        [
            f"{where(list_features)} is a generator function, but guide.Guide/GetFeature responds"
            " with one message; return it instead of yielding"
        ],
    ),
    "too many parameters": (
        lambda app: app.add(too_many, "guide.Guide/GetFeature"),
        [
            f"{where(too_many)} takes (request, context, more), expected (request) or"
            " (request, context)"
        ],
    ),
    "no parameter": (
        lambda app: app.add(no_parameter, "guide.Guide/GetFeature"),
        [f"{where(no_parameter)} takes no argument, expected (request) or (request, context)"],
    ),
    "keyword-only parameter": (
        lambda app: app.add(keyword_only, "guide.Guide/GetFeature"),
        [f"{where(keyword_only)} needs the keyword argument 'retries', which nobody gives it"],
    ),
    "class as a handler": (
        lambda app: app.add(Handler, "guide.Guide/GetFeature"),
        ["Handler is a class; give an object of it, or register it with add_servicer()"],
    ),
    "the same method twice": (
        lambda app: [app.rpc("guide.Guide/GetFeature")(h) for h in (get_feature, ping)],
        [f"guide.Guide/GetFeature has two handlers: {where(get_feature)} and {where(ping)}"],
    ),
    "the same method twice, from two places": (
        lambda app: [
            app.rpc("guide.Guide/GetFeature")(get_feature),
            app.service("guide.Guide").rpc("GetFeature")(ping),
        ],
        [f"guide.Guide/GetFeature has two handlers: {where(get_feature)} and {where(ping)}"],
    ),
    "servicer with no method": (
        lambda app: app.add_servicer(Empty(), "guide.Other"),
        ["servicer Empty has none of the methods of guide.Other: GetFeature, Ping"],
    ),
    "servicer with something else": (
        lambda app: app.add_servicer(Odd(), "guide.Other"),
        ["servicer Odd has 'not a method' for guide.Other/GetFeature, expected a method"],
    ),
    "fallback that cannot be one": (
        lambda app: app.fallback(too_many),
        [
            f"{where(too_many)} takes (request, context, more), expected (request) or"
            " (request, context)"
        ],
    ),
    "several problems at once": (
        lambda app: [
            app.rpc("guide.Guide/Get")(get_feature),
            app.rpc("guide.Othr/Ping")(ping),
            app.service("guide.Guide").unary_unary(list_features),
            app.rpc("guide.Other/Ping")(too_many),
        ],
        [
            f"{where(get_feature)}: no method 'Get' in service 'guide.Guide'; name one of"
            " 'GetFeature', 'ListFeatures', 'RecordRoute', 'RouteChat', 'GetHTTPStatus'",
            f"{where(ping)}: no service 'guide.Othr' in the schema; did you mean 'guide.Other'?",
            f"{where(list_features)} is registered as unary-unary, but guide.Guide/ListFeatures"
            " is unary-stream; use @unary_stream or @rpc",
            f"{where(too_many)} takes (request, context, more), expected (request) or"
            " (request, context)",
        ],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_an_error_when_bound(case: str) -> None:
    """All problems are found before the server starts; each says what was got and what to write."""
    register, problems = WRONG[case]
    app = App(schema=guide)
    register(app)
    assert problems_of(app) == problems


def test_a_late_service_is_made_when_it_is_asked_for() -> None:
    """Its name is known from the start; schema and handlers are there once somebody wants them."""
    made = []

    def make() -> Routes:
        made.append(1)
        service = Service("guide.Other")
        service.add(ping)
        service.add(get_feature)
        return bind([Unit(guide, [service])])

    late = LateService("guide.Other", make)
    routes = bind([], [late])
    assert (list(routes.services), routes.table, routes.holes) == (["guide.Other"], {}, [])
    assert (late.is_served, routes.late("/guide.Guide/Ping"), made) == (True, None, [])
    assert routes.late("/guide.Other/Ping") is not None
    assert routes.late("/guide.Other/Pong") is None
    assert (late.schema, list(late.handlers)) == (guide, ["Ping", "GetFeature"])
    assert routes.unknown("/guide.Other/Pong") == (
        "unknown method 'Pong' of service 'guide.Other'; did you mean 'Ping'?"
    )
    assert made == [1]


def test_a_late_service_that_is_there_already_is_an_error() -> None:
    """A service cannot be served twice; to say so, the late one is made."""
    app = App(schema=guide)
    app.add(ping)
    late = LateService("guide.Other", lambda: bind([Unit(guide, [Service("guide.Other")])]))
    with pytest.raises(BindError) as caught:
        bind(app.units(), [late])
    problem = f"service 'guide.Other' is in two schemas: {guide.label} and {guide.label}"
    assert str(caught.value) == problem


def test_a_service_in_two_schemas_is_an_error() -> None:
    """Two mounted apps cannot serve one service; both schemas are named."""
    one, two = App(schema=guide), App(schema=Schema.load(GUIDE, cache=False))
    one.add(ping)
    assert problems_of(one, two) == [
        f"service 'guide.Guide' is in two schemas: {guide.label} and {guide.label}",
        f"service 'guide.Other' is in two schemas: {guide.label} and {guide.label}",
    ]


def test_long_lists_of_names_are_cut() -> None:
    """Where there are many methods an error names eight of them."""
    services = "".join(
        f"service S{i} {{ rpc Get(M) returns (M); rpc Do{i}(M) returns (M); }}" for i in range(10)
    )
    app = App(f'syntax = "proto3"; message M {{}} {services}')
    app.add(get_feature, "Get")
    app.add(nothing_like_it, "q")
    assert problems_of(app) == [
        f"{where(get_feature)}: 'Get' is ambiguous; name one of 'S0/Get', 'S1/Get', 'S2/Get',"
        " 'S3/Get', 'S4/Get', 'S5/Get', 'S6/Get', 'S7/Get' and 2 more",
        f"{where(nothing_like_it)}: no method 'q' in any service of the schema; name one of"
        " 'S0/Get', 'S1/Get', 'S2/Get', 'S3/Get', 'S4/Get', 'S5/Get', 'S6/Get', 'S7/Get' and 12"
        " more",
    ]


def test_a_schema_without_services_has_no_names_to_offer() -> None:
    """A handler for a schema of messages only is told just that."""
    app = App('syntax = "proto3"; message M {}')
    app.add(ping)
    assert problems_of(app) == [f"{where(ping)}: no method 'ping' in any service of the schema"]


def test_an_app_with_handlers_and_no_source() -> None:
    """There is nothing to bind to; the error says what to write."""
    app = App()
    app.add(ping)
    with pytest.raises(SourceError) as caught:
        app.units()
    assert str(caught.value) == (
        "App(): has handlers but no source; write App('my.proto'), or give --proto"
    )


# ---- unknown methods over the wire


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "/guide.Guid/GetFeature",
            "unknown service 'guide.Guid'; did you mean 'guide.Guide'?",
        ),
        ("/other.thing.Entirely/Get", "unknown service 'other.thing.Entirely'"),
        ("/nothing", "unknown service ''"),
        (
            "/guide.Guide/GetFeatur",
            "unknown method 'GetFeatur' of service 'guide.Guide'; did you mean 'GetFeature' or"
            " 'ListFeatures'?",
        ),
        (
            "/guide.Guide/routechat",
            "unknown method 'routechat' of service 'guide.Guide'; did you mean 'RouteChat'?",
        ),
        ("/guide.Guide/Zzz", "unknown method 'Zzz' of service 'guide.Guide'"),
        (
            "/guide.Guide/RecordRoute",
            "method guide.Guide/RecordRoute is not implemented on this server",
        ),
        (
            f"/guide.Guide/{'x' * 5000}",
            f"unknown method '{'x' * 199}... of service 'guide.Guide'",
        ),
    ],
)
def test_unknown_methods_are_unimplemented_with_the_nearest_names(
    serve: Serve, path: str, text: str
) -> None:
    """Callers of what is not there are told what is near; called as unary or as a stream."""
    app = App(schema=guide)
    app.add(get_feature, "guide.Guide/GetFeature")
    with serve(app) as client:
        for kind in ("unary_unary", "stream_stream"):
            request: Any = b"" if kind == "unary_unary" else iter([b""])
            with pytest.raises(grpc.RpcError) as caught:
                list(getattr(client.channel, kind)(path)(request, timeout=20) or ())
            status = caught.value
            assert (status.code(), status.details()) == (grpc.StatusCode.UNIMPLEMENTED, text)


# ---- fallback


def one_or_many(request: Any, context: Any) -> Any:
    response = {"x": len(context.method.name)}
    return [response] if context.method.kind.response_streaming else response


async def one_or_many_async(request: Any, context: Any) -> Any:
    return one_or_many(request, context)


def many(request: Any, context: Any) -> Iterator[Any]:
    yield {"x": len(context.method.name)}


async def many_async(request: Any, context: Any) -> AsyncIterator[Any]:
    yield {"x": len(context.method.name)}


@pytest.mark.parametrize("level", ["app", "service"])
@pytest.mark.parametrize("fallback", [one_or_many, one_or_many_async, many, many_async])
def test_fallback_serves_what_has_no_handler(
    serve: Serve, fallback: Callable[..., Any], level: str
) -> None:
    """A generator serves streams of responses, any other callable all; handlers go first."""
    app = App(schema=guide)
    app.add(get_feature, "guide.Guide/GetFeature")
    (app if level == "app" else app.service("guide.Guide")).fallback(fallback)
    streams_only = fallback in (many, many_async)
    with serve(app) as client:
        got: dict[str, Any] = {}
        for name in guide.method_kinds("guide.Guide"):
            kind = guide.method_kinds("guide.Guide")[name]
            request: Any = [{"x": 1}] if kind.request_streaming else {"x": 1}
            try:
                response = client.call(f"guide.Guide/{name}", request)
            except grpc.RpcError as error:
                got[name] = error.details()
            else:
                got[name] = [r.x for r in (response if kind.response_streaming else [response])]
    hole = "method guide.Guide/{} is not implemented on this server"
    assert got == {
        "GetFeature": [1],
        "ListFeatures": [12],
        "RecordRoute": hole.format("RecordRoute") if streams_only else [11],
        "RouteChat": [9],
        "GetHTTPStatus": hole.format("GetHTTPStatus") if streams_only else [13],
    }
    others = app.server().routes.services["guide.Other"]
    assert others.holes == (() if level == "app" and not streams_only else ("GetFeature", "Ping"))


def test_a_services_own_fallback_goes_first() -> None:
    """The fallback of a service serves it; that of the app serves the others."""
    app = App(schema=guide)
    app.fallback(one_or_many)
    app.service("guide.Other").fallback(ping)
    handlers = {name: set(s.handlers.values()) for name, s in routes_of(app).services.items()}
    assert handlers == {"guide.Guide": {where(one_or_many)}, "guide.Other": {where(ping)}}


def test_a_fallback_binds_thousands_of_methods_when_they_are_called() -> None:
    """Nothing is built for a method that nobody calls, and a second call finds it bound."""
    files = FileDescriptorSet()
    for number in range(2000):
        file = files.file.add(name=f"{number}.proto", package=f"p{number}", syntax="proto3")
        file.message_type.add(name="M")
        service = file.service.add(name="S")
        for method in ("A", "B", "C"):
            m = f".p{number}.M"
            service.method.add(name=method, input_type=m, output_type=m)
    app = App(files)
    app.fallback(one_or_many)
    routes = routes_of(app)
    assert (len(routes.services), routes.holes, routes.table) == (2000, [], {})
    assert app.schema._services == {}
    found = routes.late("/p7.S/B")
    assert found is not None
    assert routes.late("/p7.S/B") is found
    assert list(app.schema._services) == ["p7.S"]
    assert [routes.late(path) for path in ("/p7.S/X", "/p2000.S/A", "A", "")] == [None] * 4


# ---- servicers of generated code

SERVICERS = '''
"""A servicer as people have it: written for generated code, with its own message classes."""
import asyncio
import grpc
import guide_pb2, guide_pb2_grpc


class Guide(guide_pb2_grpc.GuideServicer):
    def GetFeature(self, request, context):
        return guide_pb2.Point(x=request.x + 1)

    def ListFeatures(self, request, context):
        for x in range(request.x):
            yield guide_pb2.Point(x=x)

    def RecordRoute(self, request_iterator, context):
        return guide_pb2.Point(x=sum(point.x for point in request_iterator))


class AsyncGuide(guide_pb2_grpc.GuideServicer):
    async def GetFeature(self, request, context):
        return guide_pb2.Point(x=request.x + 1)

    async def ListFeatures(self, request, context):
        for x in range(request.x):
            yield guide_pb2.Point(x=x)

    async def RecordRoute(self, request_iterator, context):
        return guide_pb2.Point(x=sum([point.x async for point in request_iterator]))
'''


@pytest.fixture(scope="module")
def servicers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The servicers above, beside the modules that protoc generates for them."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "guide.proto").write_text(GUIDE)
    (folder / "servicers.py").write_text(SERVICERS)
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "guide.proto"]
    subprocess.run(
        [*protoc, "--python_out=.", "--grpc_python_out=."], cwd=folder, check=True, timeout=60
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        spec = importlib.util.spec_from_file_location("servicers", folder / "servicers.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    for name in ("guide_pb2", "guide_pb2_grpc"):
        del sys.modules[name]


@pytest.mark.parametrize("name", ["Guide", "AsyncGuide"])
def test_a_servicer_of_generated_code_runs_unchanged(
    serve: Serve, servicers: ModuleType, name: str
) -> None:
    """Sync or async, with the messages of its own modules; what it does not override is a hole."""
    app = App(schema=guide)
    app.add_servicer(getattr(servicers, name)(), "guide.Guide")
    with serve(app) as client:
        assert client.call("guide.Guide/GetFeature", {"x": 4}).x == 5
        assert [p.x for p in client.call("guide.Guide/ListFeatures", {"x": 3})] == [0, 1, 2]
        assert client.call("guide.Guide/RecordRoute", [{"x": 2}, {"x": 3}]).x == 5
        for path, request in (("RouteChat", [{"x": 1}]), ("GetHTTPStatus", {})):
            with pytest.raises(grpc.RpcError) as caught:
                client.call(f"guide.Guide/{path}", request)
            assert (caught.value.code(), caught.value.details()) == (
                grpc.StatusCode.UNIMPLEMENTED,
                "Method not implemented!",
            )


def test_a_servicer_may_have_pythons_names() -> None:
    """Methods are found by rpc name, or by the name that Python would give them."""

    class Servicer:
        def get_feature(self, request: Any, context: Any) -> Any:
            return request

        def get_http_status(self, request: Any) -> Any:
            return request

        def GetHTTPStatus(self, request: Any) -> Any:
            return request

    app = App(schema=guide)
    app.add_servicer(Servicer(), "guide.Guide")
    assert dict(routes_of(app).services["guide.Guide"].handlers) == {
        "GetFeature": where(Servicer.get_feature),
        "GetHTTPStatus": where(Servicer.GetHTTPStatus),
    }


def test_a_servicer_may_be_a_proxy() -> None:
    """An object that makes its methods when they are asked for serves them all."""

    class Proxy:
        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            return lambda request: request

    app = App(schema=guide)
    app.add_servicer(Proxy(), "guide.Other")
    assert list(routes_of(app).services["guide.Other"].handlers) == ["GetFeature", "Ping"]


# ---- replacing the snapshot


def test_a_call_under_way_keeps_its_handler_when_routes_are_replaced() -> None:
    """New calls get the new handlers, and the new schema; what runs ends as it began."""

    async def main() -> None:
        old, new = App(schema=guide), App(GUIDE.replace("int32 x", "int64 y"))

        @old.rpc("guide.Guide/RouteChat")
        async def chat(points: AsyncIterator[Any]) -> AsyncIterator[Any]:
            async for point in points:
                yield {"x": point.x + 1}

        @new.rpc("guide.Guide/RouteChat")
        async def chat_again(points: AsyncIterator[Any]) -> AsyncIterator[Any]:
            async for point in points:
                yield {"y": point.y + 100}

        async with (
            old.server("127.0.0.1:0") as server,
            grpc.aio.insecure_channel(server.addresses[0]) as channel,
        ):
            call: Any = channel.stream_stream("/guide.Guide/RouteChat")
            under_way = call(timeout=20)
            await under_way.write(b"\x08\x01")
            answers = [await under_way.read()]
            await server.replace(new)
            await under_way.write(b"\x08\x02")
            answers.append(await under_way.read())
            later = call(timeout=20)
            await later.write(b"\x08\x02")
            answers.append(await later.read())
            assert answers == [b"\x08\x02", b"\x08\x03", b"\x08\x66"]
            assert server.routes.services["guide.Guide"].schema is new.schema

            broken = App(schema=guide)
            broken.add(ping, "guide.Guide/Nope")
            before = server.routes
            with pytest.raises(BindError):
                await server.replace(broken)
            assert server.routes is before

    asyncio.run(main())


# ---- a schema that breaks late


def test_a_file_that_cannot_be_built_fails_only_calls_to_it(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Behind a fallback nothing is built before it is called; the call then ends with INTERNAL."""
    files = FileDescriptorSet()
    good = files.file.add(name="good.proto", package="good", syntax="proto3")
    good.message_type.add(name="M")
    good.service.add(name="S").method.add(name="Do", input_type=".good.M", output_type=".good.M")
    bad = files.file.add(name="bad.proto", package="bad", syntax="proto3")
    bad.service.add(name="S").method.add(name="Do", input_type=".no.M", output_type=".no.M")
    app = App(files)
    app.fallback(get_feature)
    with serve(app, reflection=False) as client:
        assert client.call("good.S/Do", {}) == app.schema.message("good.M")()
        call: Any = client.channel.unary_unary("/bad.S/Do")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=20)
    status = caught.value
    (record,) = (r for r in caplog.records if r.name == "dynserve.handlers")
    identifier = str(status.details()).removeprefix("internal error (error id ").rstrip(")")
    assert (status.code(), status.details(), record.getMessage()) == (
        grpc.StatusCode.INTERNAL,
        f"internal error (error id {identifier})",
        f"/bad.S/Do failed (error id {identifier})",
    )
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "bad.proto: cannot be built: couldn't resolve name '.no.M'"


def test_a_late_service_that_cannot_be_bound_fails_only_calls_to_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Health cannot be bound, whatever the reason: it is tried once, its calls end with INTERNAL,
    and reflection describes all but it."""
    app = App(schema=guide)
    app.add(ping)
    tried = []

    def fail(_health: object, _policy: object) -> Routes:
        tried.append(1)
        raise TypeError("no such thing")

    monkeypatch.setattr("dynserve.builtin.health.Health._bound", fail)
    with serve(app) as client:
        call: Any = client.channel.unary_unary("/grpc.health.v1.Health/Check")
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", timeout=20)
        assert client.call("guide.Other/Ping", {"x": 1}).x == 1
        described = ProtoReflectionDescriptorDatabase(client.channel).get_services()
    assert tried == [1]
    assert "guide.Other" in described
    assert "grpc.health.v1.Health" not in described
    status = caught.value
    identifier = str(status.details()).removeprefix("internal error (error id ").rstrip(")")
    told = {(r.name, r.getMessage()): r.exc_info for r in caplog.records}
    failed = ("dynserve.handlers", f"/grpc.health.v1.Health/Check failed (error id {identifier})")
    assert {("dynserve.server", "grpc.health.v1.Health cannot be served"), failed} <= set(told)
    assert (status.code(), status.details()) == (
        grpc.StatusCode.INTERNAL,
        f"internal error (error id {identifier})",
    )
    raised = told[failed]
    assert raised is not None
    assert str(raised[1]) == "no such thing"


def test_a_late_service_is_bound_once_whoever_asks() -> None:
    """It is called on one thread and described on another, at the same time maybe."""
    threads = 8
    all_there = threading.Barrier(threads)
    made = []

    def make() -> Routes:
        made.append(1)
        service = Service("guide.Other")
        service.add(ping)
        return bind([Unit(Schema.load(GUIDE, cache=False), [service])])

    late = LateService("guide.Other", make)

    def ask(_: int) -> Schema:
        all_there.wait(20)
        return late.schema

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        schemas = set(pool.map(ask, range(threads)))
    assert (len(schemas), made) == (1, [1])


def test_health_and_reflection_of_a_schema_are_the_servers_own() -> None:
    """What was exported of a server declares them, too; who registers handlers is told of two."""
    from grpc_health.v1 import health_pb2

    app = App(schema=Schema.load(health_pb2))
    app.fallback(lambda request: {})
    server = app.server()
    assert "grpc.health.v1.Health" in server.routes.services
    app.rpc("grpc.health.v1.Health/Check")(lambda request: {})
    with pytest.raises(BindError) as caught:
        app.server()
    assert str(caught.value).startswith("service 'grpc.health.v1.Health' is in two schemas: ")
