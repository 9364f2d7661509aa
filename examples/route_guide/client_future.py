"""RouteGuide, called with futures: every call begins before the answer to any is waited for.

`.future` is there where the answer is one message. A call that is answered with a stream needs
none: it begins at once, and its responses are waited for one by one.

The route is a random one; the same SEED gives the same: client_future.py [ADDRESS [SEED]]
"""

import random
import sys

import dynserve

POINTS = {
    "castle": {"latitude": 472275000, "longitude": 88156000},
    "lake": {"latitude": 473000000, "longitude": 86000000},
}
AREA = {
    "lo": {"latitude": 472000000, "longitude": 86900000},
    "hi": {"latitude": 472600000, "longitude": 88200000},
}


def random_point() -> dict[str, int]:
    return {
        "latitude": random.randint(-900000000, 900000000),
        "longitude": random.randint(-1800000000, 1800000000),
    }


def main(address: str = "localhost:50051", seed: str | None = None) -> None:
    random.seed(seed)
    with dynserve.connect(address) as client:
        guide = client.service("routeguide.RouteGuide")
        lookups = {name: guide.GetFeature.future(point) for name, point in POINTS.items()}
        listing = guide.ListFeatures(AREA)
        route = guide.RecordRoute.future(random_point() for _ in range(5))

        for name, lookup in lookups.items():
            print(f"At the {name} is {lookup.result().name or 'nothing that is known'}")
        for feature in listing:
            print("In the area is", feature.name)
        summary = route.result()
        print(f"{summary.point_count} points, {summary.distance} m")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
