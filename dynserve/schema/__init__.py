"""From .proto files to message classes; this floor knows nothing of gRPC."""

from .compiler import Limits
from .schema import Schema

__all__ = ["Limits", "Schema"]
