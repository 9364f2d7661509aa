"""`buf curl` against `dynserve run`, by both versions of reflection."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.running import HEALTH_METHODS, output_of

pytestmark = [
    pytest.mark.real,
    pytest.mark.parametrize("reflection", ["grpc-v1", "grpc-v1alpha"]),
]


@pytest.fixture
def curl(tool: Callable[[str], str], address: str, reflection: str) -> Callable[..., str]:
    """``curl(path, *options)``: what it prints."""
    command = [tool("buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]

    def run(path: str, *options: str) -> str:
        url = f"http://{address}{path}"
        return output_of([*command, "--reflect-protocol", reflection, *options, url])

    return run


def test_list_services(curl: Callable[..., str]) -> None:
    """All services are listed."""
    assert curl("", "--list-services") == (
        "grpc.health.v1.Health\n"
        "grpc.reflection.v1.ServerReflection\n"
        "grpc.reflection.v1alpha.ServerReflection\n"
        "routeguide.RouteGuide\n"
    )


def test_list_methods(curl: Callable[..., str]) -> None:
    """All methods are listed, which takes the files of all services."""
    methods = [
        *(f"grpc.health.v1.Health/{method}" for method in HEALTH_METHODS),
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "routeguide.RouteGuide/GetFeature",
        "routeguide.RouteGuide/ListFeatures",
        "routeguide.RouteGuide/RecordRoute",
        "routeguide.RouteGuide/RouteChat",
    ]
    assert curl("", "--list-methods").splitlines() == methods


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
            '{"lo": {"latitude": 472250000, "longitude": 88000000},'
            ' "hi": {"latitude": 472300000, "longitude": 88200000}}',
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
            "RecordRoute",
            '{"latitude": 950000000}',
            """\
{
   "code": "invalid_argument",
   "message": "point 1 is not on the globe: (latitude, longitude) is (950000000, 0)"
}
""",
        ),
    ],
    ids=["unary-unary", "unary-stream", "stream-unary", "error"],
)
def test_call(curl: Callable[..., str], method: str, data: str, output: str) -> None:
    """Methods are called with no schema but what reflection tells; errors are told as they are."""
    assert curl(f"/routeguide.RouteGuide/{method}", "-d", data) == output


def test_chat(curl: Callable[..., str], reflection: str) -> None:
    """Notes go both ways on one stream."""
    place = f'"location": {{"latitude": {len(reflection)}}}'  # a place for each version
    data = f'{{{place}, "message": "one"}} {{{place}, "message": "two"}}'
    assert curl("/routeguide.RouteGuide/RouteChat", "-d", data) == (
        f'{{\n  "location": {{\n    "latitude": {len(reflection)}\n  }},\n  "message": "one"\n}}\n'
    )
