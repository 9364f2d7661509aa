"""From .proto files to message classes; this floor knows nothing of gRPC."""

from .schema import Schema
from .toolchain import Limits

__all__ = ["Limits", "Schema"]
