"""Serve any .proto from Python, with no generated code."""

from typing import TYPE_CHECKING

from dynserve.app import App
from dynserve.context import AsyncContext, Context
from dynserve.errors import (
    AddressError,
    BindError,
    CompileError,
    CompilerError,
    DescriptorError,
    Diagnostic,
    DynserveError,
    EngineError,
    MessageError,
    PluginError,
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

__all__ = [
    "AddressError",
    "App",
    "AsyncContext",
    "BindError",
    "CompileError",
    "CompilerError",
    "Context",
    "DescriptorError",
    "Diagnostic",
    "DynserveError",
    "EngineError",
    "Kind",
    "Limits",
    "MessageError",
    "MethodInfo",
    "PluginError",
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
]

__version__: str
"""The version of the installed package, such as ``"1.2.0"``."""

if not TYPE_CHECKING:  # a type checker would take it to mean that every name is there

    def __getattr__(name: str) -> str:
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version  # slow to import, and seldom asked for

        return version("dynserve")
