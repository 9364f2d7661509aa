"""RouteGuide, called with asyncio: the calls of client.py, all under way at the same time.

The route is a random one; the same SEED gives the same: client_aio.py [ADDRESS [SEED]]
"""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
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


async def get_feature(guide: Any, point: dict[str, int]) -> str:
    feature = await guide.GetFeature(point)
    return f"At the point is {feature.name or 'nothing that is known'}"


async def list_features(guide: Any) -> str:
    names = [feature.name async for feature in guide.ListFeatures(AREA)]
    return f"In the area are {', '.join(names)}"


async def walk(guide: Any) -> AsyncIterator[Any]:
    features = [feature async for feature in guide.ListFeatures(AREA)]
    for feature in random.sample(features, 4):
        yield feature.location


async def record_route(guide: Any) -> str:
    summary = await guide.RecordRoute(walk(guide))  # one call feeds another
    return f"{summary.point_count} points, {summary.feature_count} features, {summary.distance} m"


async def chat(guide: Any) -> str:
    earlier = [note.message async for note in guide.RouteChat(NOTES)]
    return f"Earlier notes say: {', '.join(earlier)}"


async def main(address: str = "localhost:50051", seed: str | None = None) -> None:
    random.seed(seed)
    async with dynserve.aio.connect(address) as client:
        guide = await client.service("routeguide.RouteGuide")
        for line in await asyncio.gather(
            get_feature(guide, CASTLE),
            get_feature(guide, LAKE),
            list_features(guide),
            record_route(guide),
            chat(guide),
        ):
            print(line)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
