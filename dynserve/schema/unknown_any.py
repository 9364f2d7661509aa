"""A pool that has every message type: what an ``Any`` holds that nobody declares has no fields."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool, message_factory

from .placeholders import placeholders

if TYPE_CHECKING:
    from .pool import LazyPool

__all__ = ["PoolWithUnknown"]


class PoolWithUnknown:
    """What ``json_format`` asks of a pool; of an unknown type it shows the name alone."""

    def __init__(self, pool: LazyPool) -> None:
        self._pool = pool

    def FindMessageTypeByName(self, full_name: str) -> Any:
        """The descriptor of the type, or of one without fields."""
        try:
            return self._pool.FindMessageTypeByName(full_name)
        except KeyError:
            return _unknown().DESCRIPTOR

    def FindExtensionByName(self, full_name: str) -> Any:
        """The descriptor of the extension; KeyError where there is none."""
        return self._pool.FindExtensionByName(full_name)


@functools.cache
def _unknown() -> Any:
    """The class of a message without fields."""
    pool = descriptor_pool.DescriptorPool()
    (file,) = placeholders([], {"dynserve.Unknown": False})
    pool.AddSerializedFile(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("dynserve.Unknown"))
