"""Serve any .proto from Python, and call any server, with no generated code."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynserve import aio
    from dynserve import testing as testing
    from dynserve.app import App
    from dynserve.client.security import TLS
    from dynserve.client.service_config import MethodPolicy, Retry, service_config
    from dynserve.client.sync import Client
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
        SettingError,
        SourceError,
        SymbolError,
        TargetError,
        TerminatedError,
        UnhandledMethodsError,
    )
    from dynserve.identity import Identity
    from dynserve.method import Kind, MethodInfo, ServiceInfo
    from dynserve.schema import Limits, Schema
    from dynserve.server import Server
    from dynserve.service import Service
    from dynserve.status import StatusError

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
    "Identity",
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
    "SettingError",
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

# Each name is imported when it is first asked for: a client needs no server, a server no client.
_HOMES = {
    "aio": "aio",
    "app": "App",
    "client.security": "TLS",
    "client.service_config": "MethodPolicy Retry service_config",
    "client.sync": "Client connect",
    "context": "AsyncContext Context",
    "errors": "AddressError BindError CompileError CompilerError CredentialsError DescriptorError"
    " Diagnostic DynserveError EngineError MessageError PluginError ReflectionError SettingError"
    " SourceError SymbolError TargetError TerminatedError UnhandledMethodsError",
    "identity": "Identity",
    "method": "Kind MethodInfo ServiceInfo",
    "schema": "Limits Schema",
    "server": "Server",
    "service": "Service",
    "status": "StatusError",
    "testing": "testing",
}

if not TYPE_CHECKING:  # a type checker would take it to mean that every name is there

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name == "__version__":
            return import_module("importlib.metadata").version(__name__)
        home = next((home for home, names in _HOMES.items() if name in names.split()), None)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"{__name__}.{home}")
        found = module if home == name else getattr(module, name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
