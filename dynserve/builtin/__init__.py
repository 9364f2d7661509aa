"""Services that every server offers, bound when a client first calls them: reflection, health."""

from .drain import Drain
from .health import Health
from .reflection import REFLECTION, reflection_services

__all__ = ["REFLECTION", "Drain", "Health", "reflection_services"]
