"""Geometry on the globe; positions are in E7 units, degrees times 10,000,000."""

from math import asin, cos, radians, sin, sqrt
from typing import Any

E7 = 10_000_000
EARTH_RADIUS = 6_371_000  # metres, the mean of the globe

Position = tuple[int, int]


def position(point: Any) -> Position:
    """Turn a Point message into (latitude, longitude), which unlike a message can be a dict key."""
    return point.latitude, point.longitude


def on_globe(place: Position) -> bool:
    """Tell whether the latitude is within 90 and the longitude within 180 degrees."""
    latitude, longitude = place
    return abs(latitude) <= 90 * E7 and abs(longitude) <= 180 * E7


def inside(place: Position, corner: Position, opposite: Position) -> bool:
    """Tell whether a place is in the rectangle or on its edge; the corners come in any order."""
    return all(
        min(edges) <= coordinate <= max(edges)
        for coordinate, *edges in zip(place, corner, opposite, strict=True)
    )


def distance(start: Position, end: Position) -> float:
    """Measure the great-circle distance in metres, by the haversine formula."""
    latitude, longitude, end_latitude, end_longitude = (radians(e7 / E7) for e7 in (*start, *end))
    haversine = (
        sin((end_latitude - latitude) / 2) ** 2
        + cos(latitude) * cos(end_latitude) * sin((end_longitude - longitude) / 2) ** 2
    )
    # Rounding can carry opposite ends of the globe a hair over 1, where asin is undefined.
    return 2 * EARTH_RADIUS * asin(sqrt(min(1.0, haversine)))
