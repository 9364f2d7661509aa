"""Serve any .proto from Python, with no generated code."""

from typing import TYPE_CHECKING

from dynserve.app import App
from dynserve.context import AsyncContext, Context
from dynserve.errors import (
    AddressError,
    BindError,
    CompileError,
    CompilerError,
    CredentialsError,
    DescriptorError,
    Diagnostic,
    DynserveError,
    EngineError,
    MessageError,
    PluginError,
    ReflectionError,
    SourceError,
    SymbolError,
    TargetError,
    TerminatedError,
    UnhandledMethodsError,
)
from dynserve.method import Kind, MethodInfo, ServiceInfo
from dynserve.schema import Limits, Schema
from dynserve.server import Server
from dynserve.service import Service
from dynserve.status import StatusError

if TYPE_CHECKING:
    from dynserve import aio
    from dynserve.client.security import TLS
    from dynserve.client.service_config import MethodPolicy, Retry, service_config
    from dynserve.client.sync import Client

    connect = Client

__all__ = [
    "TLS",
    "AddressError",
    "App",
    "AsyncContext",
    "BindError",
    "Client",
    "CompileError",
    "CompilerError",
    "Context",
    "CredentialsError",
    "DescriptorError",
    "Diagnostic",
    "DynserveError",
    "EngineError",
    "Kind",
    "Limits",
    "MessageError",
    "MethodInfo",
    "MethodPolicy",
    "PluginError",
    "ReflectionError",
    "Retry",
    "Schema",
    "Server",
    "Service",
    "ServiceInfo",
    "SourceError",
    "StatusError",
    "SymbolError",
    "TargetError",
    "TerminatedError",
    "UnhandledMethodsError",
    "aio",
    "connect",
    "service_config",
]

__version__: str
"""The version of the installed package, such as ``"1.2.0"``."""

# What a server has no use for is imported when it is first asked for.
_LATE = {
    "Client": "dynserve.client.sync:Client",
    "MethodPolicy": "dynserve.client.service_config:MethodPolicy",
    "Retry": "dynserve.client.service_config:Retry",
    "TLS": "dynserve.client.security:TLS",
    "aio": "dynserve.aio:",
    "connect": "dynserve.client.sync:Client",
    "service_config": "dynserve.client.service_config:service_config",
}

if not TYPE_CHECKING:  # a type checker would take it to mean that every name is there

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version  # slow to import, and seldom asked for

            return version("dynserve")
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        module, _, attribute = _LATE[name].partition(":")
        found = import_module(module)
        found = getattr(found, attribute) if attribute else found
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATE})
