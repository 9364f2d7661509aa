"""grpcurl against `dynserve run`: what it discovers, and what it calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running import HEALTH_METHODS, output_of, running

pytestmark = pytest.mark.real

_LIST = """
  rpc List ( .grpc.health.v1.HealthListRequest ) returns ( .grpc.health.v1.HealthListResponse );"""

BUILTIN = f"""\
grpc.health.v1.Health is a service:
service Health {{
  rpc Check ( .grpc.health.v1.HealthCheckRequest ) returns ( .grpc.health.v1.HealthCheckResponse );{_LIST if "List" in HEALTH_METHODS else ""}
  rpc Watch ( .grpc.health.v1.HealthCheckRequest ) returns ( stream .grpc.health.v1.HealthCheckResponse );
}}
grpc.reflection.v1.ServerReflection is a service:
service ServerReflection {{
  rpc ServerReflectionInfo ( stream .grpc.reflection.v1.ServerReflectionRequest ) returns ( stream .grpc.reflection.v1.ServerReflectionResponse );
}}
grpc.reflection.v1alpha.ServerReflection is a service:
service ServerReflection {{
  rpc ServerReflectionInfo ( stream .grpc.reflection.v1alpha.ServerReflectionRequest ) returns ( stream .grpc.reflection.v1alpha.ServerReflectionResponse );
}}
"""  # noqa: E501 - as grpcurl prints it

ROUTE_GUIDE = """\
routeguide.RouteGuide is a service:
// Knows named places, measures routes, and keeps notes that travellers leave for one another.
service RouteGuide {
  // Looks up the place at exactly this point.
  // A point with nothing on it is no error: the feature then has an empty name.
  rpc GetFeature ( .routeguide.Point ) returns ( .routeguide.Feature );
  // Streams every known place inside a rectangle, its edges included.
  rpc ListFeatures ( .routeguide.Rectangle ) returns ( stream .routeguide.Feature );
  // Follows a route point by point and sums it up once the client has sent the last point.
  // Fails with INVALID_ARGUMENT at a point that is not on the globe, and with OUT_OF_RANGE
  // if the route is longer than an int32 can say.
  rpc RecordRoute ( stream .routeguide.Point ) returns ( .routeguide.RouteSummary );
  // Takes notes about locations. Each note is answered with the earlier notes at the same
  // location, whoever left them, oldest first; the first note at a location gets no answer.
  rpc RouteChat ( stream .routeguide.RouteNote ) returns ( stream .routeguide.RouteNote );
}
"""


@pytest.fixture
def grpcurl(tool: Callable[[str], str]) -> Callable[..., str]:
    """``grpcurl(address, *words)``: what it prints."""
    path = tool("grpcurl")

    def run(address: str, *words: str, data: str | None = None) -> str:
        options = [] if data is None else ["-d", data]
        return output_of([path, "-plaintext", "-max-time", "20", *options, address, *words])

    return run


def test_list(grpcurl: Callable[..., str], address: str) -> None:
    """All services are listed."""
    assert grpcurl(address, "list") == (
        "grpc.health.v1.Health\n"
        "grpc.reflection.v1.ServerReflection\n"
        "grpc.reflection.v1alpha.ServerReflection\n"
        "routeguide.RouteGuide\n"
    )


def test_list_methods(grpcurl: Callable[..., str], address: str) -> None:
    """The methods of a service are listed in the order of its file."""
    assert grpcurl(address, "list", "routeguide.RouteGuide") == (
        "routeguide.RouteGuide.GetFeature\n"
        "routeguide.RouteGuide.ListFeatures\n"
        "routeguide.RouteGuide.RecordRoute\n"
        "routeguide.RouteGuide.RouteChat\n"
    )


def test_describe_everything(grpcurl: Callable[..., str], address: str) -> None:
    """A bare describe shows every service, with the comments of its source."""
    assert grpcurl(address, "describe") == BUILTIN + ROUTE_GUIDE


@pytest.mark.parametrize(
    ("symbol", "text"),
    [
        ("routeguide.RouteGuide", ROUTE_GUIDE),
        (
            "routeguide.RouteGuide.GetFeature",
            """\
routeguide.RouteGuide.GetFeature is a method:
// Looks up the place at exactly this point.
// A point with nothing on it is no error: the feature then has an empty name.
rpc GetFeature ( .routeguide.Point ) returns ( .routeguide.Feature );
""",
        ),
        (
            "routeguide.Point",
            """\
routeguide.Point is a message:
// A position on the globe, in E7 units: degrees times 10,000,000, rounded to an integer.
// Zürich, at 47.3779° N and 8.5403° E, is latitude 473779000, longitude 85403000.
message Point {
  // North is positive: -900000000 (South Pole) to 900000000 (North Pole).
  int32 latitude = 1;
  // East is positive: -1800000000 to 1800000000.
  int32 longitude = 2;
}
""",
        ),
        (
            "routeguide.RouteNote.message",
            """\
routeguide.RouteNote.message is a field:
// What the note says; any text.
string message = 2;
""",
        ),
    ],
)
def test_describe(grpcurl: Callable[..., str], address: str, symbol: str, text: str) -> None:
    """A service, a method, a message and a field are described with their comments."""
    assert grpcurl(address, "describe", symbol) == text


def test_describe_what_is_not_there(grpcurl: Callable[..., str], address: str) -> None:
    """An unknown symbol is said to be unknown."""
    assert grpcurl(address, "describe", "routeguide.Nope") == (
        'Failed to resolve symbol "routeguide.Nope": Symbol not found: routeguide.Nope\n'
    )


@pytest.mark.parametrize(
    ("method", "data", "output"),
    [
        (
            "GetFeature",
            '{"latitude": 472275000, "longitude": 88156000}',
            """\
{
  "name": "Rapperswil Castle",
  "location": {
    "latitude": 472275000,
    "longitude": 88156000
  }
}
""",
        ),
        (
            "ListFeatures",
            '{"lo": {"latitude": 472500000, "longitude": 86900000},'
            ' "hi": {"latitude": 472000000, "longitude": 87300000}}',
            """\
{
  "name": "Stäfa",
  "location": {
    "latitude": 472411000,
    "longitude": 87220000
  }
}
{
  "name": "Richterswil",
  "location": {
    "latitude": 472071000,
    "longitude": 87060000
  }
}
""",
        ),
        (
            "RecordRoute",
            '{"latitude": 473779000, "longitude": 85403000}'
            '{"latitude": 472275000, "longitude": 88156000}',
            """\
{
  "pointCount": 2,
  "featureCount": 2,
  "distance": 26657
}
""",
        ),
        (
            "RouteChat",
            '{"location": {"latitude": 1}, "message": "first"}'
            '{"location": {"latitude": 2}, "message": "elsewhere"}'
            '{"location": {"latitude": 1}, "message": "second"}'
            '{"location": {"latitude": 1}, "message": "third"}',
            """\
{
  "location": {
    "latitude": 1
  },
  "message": "first"
}
{
  "location": {
    "latitude": 1
  },
  "message": "first"
}
{
  "location": {
    "latitude": 1
  },
  "message": "second"
}
""",
        ),
    ],
    ids=["unary-unary", "unary-stream", "stream-unary", "stream-stream"],
)
def test_call(
    grpcurl: Callable[..., str], address: str, method: str, data: str, output: str
) -> None:
    """All four kinds of method are called with no schema but what reflection tells."""
    assert grpcurl(address, f"routeguide.RouteGuide/{method}", data=data) == output


def test_call_of_an_unknown_method(grpcurl: Callable[..., str], address: str) -> None:
    """grpcurl itself refuses a method that reflection does not show."""
    assert grpcurl(address, "routeguide.RouteGuide/Nope", data="{}") == (
        'Error invoking method "routeguide.RouteGuide/Nope": service "routeguide.RouteGuide"'
        ' does not include a method named "Nope"\n'
    )


def test_health(grpcurl: Callable[..., str], address: str) -> None:
    """The health service is called like any other."""
    request = '{"service": "routeguide.RouteGuide"}'
    answer = grpcurl(address, "grpc.health.v1.Health/Check", data=request)
    assert answer == '{\n  "status": "SERVING"\n}\n'


def test_plugins_with_clashing_files(grpcurl: Callable[..., str], tmp_path: Path) -> None:
    """Two plugins whose protos have one name and other content are both described, and called."""
    for name, field in (("one", "first"), ("two", "second")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "common.proto").write_text(
            f'syntax = "proto3"; package common; message Thing {{ string {field} = 1; }}'
        )
        (folder / "service.proto").write_text(
            f'syntax = "proto3"; package {name}; import "common.proto";\n'
            f"// Of {name}.\nservice S {{ rpc Do(common.Thing) returns (common.Thing); }}"
        )
        (folder / "plugin.py").write_text(
            "from pathlib import Path\nfrom dynserve import App\n"
            "app = App(Path(__file__).parent)\n"
            f"app.add(lambda request: request, '{name}.S/Do')\n"
        )
    described = "".join(
        f"""\
{name}.S is a service:
// Of {name}.
service S {{
  rpc Do ( .common.Thing ) returns ( .common.Thing );
}}
"""
        for name in ("one", "two")
    )
    with running(str(tmp_path / "one"), str(tmp_path / "two")) as address:
        assert grpcurl(address, "describe") == BUILTIN + described
        for name, field in (("one", "first"), ("two", "second")):
            answer = grpcurl(address, f"{name}.S/Do", data=f'{{"{field}": "x"}}')
            assert answer == f'{{\n  "{field}": "x"\n}}\n'
