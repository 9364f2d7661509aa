"""The whole configuration: ``envoy.config.bootstrap.v3.Bootstrap``, all of it static."""

from __future__ import annotations

from .cluster import clusters
from .listener import listener
from .parts import Json, extension
from .proxy import Front, Proxy

__all__ = ["bootstrap"]

_MONITORS = "envoy.extensions.resource_monitors"


def bootstrap(proxy: Proxy) -> Json:
    """Envoy's bootstrap configuration, as the JSON form of its message.

    Raises:
        ProxyError: settings do not go together.
    """
    resources = {"listeners": [listener(proxy)], "clusters": clusters(proxy)}
    return {
        **_admin(proxy.front),
        "static_resources": resources,
        "overload_manager": _overload_manager(proxy.front),
    }


def _admin(front: Front) -> Json:
    """Envoy's own pages; there is no password, so by default only this machine reaches them."""
    if front.admin_at is None:
        return {}
    return {"admin": {"address": front.admin_at.address()}}


def _overload_manager(front: Front) -> Json:
    """Connections cost memory, and Envoy limits them only where it is told to."""
    monitor = extension(
        "envoy.resource_monitors.global_downstream_max_connections",
        f"{_MONITORS}.downstream_connections.v3.DownstreamConnectionsConfig",
        {"max_active_downstream_connections": front.client_connections},
    )
    return {"resource_monitors": [monitor]}
