"""A configuration for Envoy, which balances calls over servers; nothing here starts one."""

from .bootstrap import bootstrap
from .endpoint import Endpoint
from .errors import ProxyError
from .proxy import (
    TLS,
    Breakers,
    Ejection,
    Front,
    Health,
    Hooks,
    Proxy,
    Retries,
    Transcoding,
    Upstream,
    Web,
)
from .text import to_json, to_yaml
from .transcoding import transcoding

__all__ = [
    "TLS",
    "Breakers",
    "Ejection",
    "Endpoint",
    "Front",
    "Health",
    "Hooks",
    "Proxy",
    "ProxyError",
    "Retries",
    "Transcoding",
    "Upstream",
    "Web",
    "bootstrap",
    "to_json",
    "to_yaml",
    "transcoding",
]
