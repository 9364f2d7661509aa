"""RouteGuide, called: a method of each kind, one after the other.

The route is a random one; the same SEED gives the same: client.py [ADDRESS [SEED]]
"""

import random
import sys
from collections.abc import Iterator
from typing import Any

import dynserve

CASTLE = {"latitude": 472275000, "longitude": 88156000}
LAKE = {"latitude": 473000000, "longitude": 86000000}
AREA = {
    "lo": {"latitude": 472000000, "longitude": 86900000},
    "hi": {"latitude": 472600000, "longitude": 88200000},
}
NOTES = [
    {"location": LAKE, "message": "Nice and cool"},
    {"location": CASTLE, "message": "Closed today"},
    {"location": LAKE, "message": "Now it rains"},
]


def get_features(guide: Any) -> None:
    for point in (CASTLE, LAKE):
        feature = guide.GetFeature(point)
        print("At the point is", feature.name or "nothing that is known")


def list_features(guide: Any) -> list[Any]:
    features = []
    for feature in guide.ListFeatures(AREA):
        print("In the area is", feature.name)
        features.append(feature)
    return features


def walk(features: list[Any]) -> Iterator[Any]:
    for feature in random.sample(features, 4):
        print("Passing", feature.name)
        yield feature.location


def record_route(guide: Any, features: list[Any]) -> None:
    summary = guide.RecordRoute(walk(features))  # each point is sent when it is yielded
    print(f"{summary.point_count} points, {summary.feature_count} features, {summary.distance} m")


def chat(guide: Any) -> None:
    for note in guide.RouteChat(NOTES):
        print("An earlier note says:", note.message)


def main(address: str = "localhost:50051", seed: str | None = None) -> None:
    random.seed(seed)
    with dynserve.connect(address) as client:
        guide = client.service("routeguide.RouteGuide")
        get_features(guide)
        features = list_features(guide)
        record_route(guide, features)
        chat(guide)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
