"""RouteGuide: the four streaming kinds, sync and async side by side in one service."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from grpc import StatusCode

from dynserve import App, StatusError

from .geo import Position, distance, inside, on_globe, position
from .note_store import NoteStore

INT32_MAX = 2**31 - 1
FEATURES_FILE = Path(__file__).with_name("features.json")

app = App(Path(__file__).parents[2] / "protos" / "route_guide.proto")
route_guide = app.service("routeguide.RouteGuide")
Feature: Any = app.schema.message("routeguide.Feature")


def load_features() -> dict[Position, Any]:
    """Read the known features, by their position."""
    features = [Feature(**fields) for fields in json.loads(FEATURES_FILE.read_text("utf-8"))]
    return {position(feature.location): feature for feature in features}


features = load_features()
notes = NoteStore()


@route_guide.unary_unary
def get_feature(point: Any) -> Any:
    """Return the feature at exactly this point, or one without a name."""
    return features.get(position(point), Feature(location=point))


@route_guide.unary_stream
def list_features(rectangle: Any) -> Iterator[Any]:
    """Yield the features in the rectangle, in the order of the file."""
    corners = position(rectangle.lo), position(rectangle.hi)
    for place, feature in features.items():
        if inside(place, *corners):
            yield feature


@route_guide.stream_unary
async def record_route(points: AsyncIterator[Any]) -> dict[str, int]:
    """Add up a route as its points arrive: metres, and whole seconds."""
    started = monotonic()
    point_count = feature_count = 0
    metres = 0.0
    previous = None
    async for point in points:
        place = position(point)
        point_count += 1
        if not on_globe(place):
            message = f"point {point_count} is not on the globe: (latitude, longitude) is {place}"
            raise StatusError(StatusCode.INVALID_ARGUMENT, message)
        feature_count += place in features
        metres += distance(previous or place, place)
        previous = place
    if round(metres) > INT32_MAX:
        message = f"the distance, {metres:.0f} m, does not fit in an int32"
        raise StatusError(StatusCode.OUT_OF_RANGE, message)
    return {
        "point_count": point_count,
        "feature_count": feature_count,
        "distance": round(metres),
        "elapsed_time": int(monotonic() - started),
    }


@route_guide.stream_stream
async def route_chat(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Answer each note with the earlier ones at its location, from this call and all others."""
    async for note in requests:
        for earlier in notes.add(position(note.location), note):
            yield earlier
