"""Services that every server offers, bound like any other: reflection and health."""

from .drain import Drain
from .health import Health
from .reflection import reflection_units

__all__ = ["Drain", "Health", "reflection_units"]
