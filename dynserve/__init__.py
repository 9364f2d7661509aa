"""Serve any .proto from Python, with no generated code."""

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
    MessageError,
    PluginError,
    SourceError,
    SymbolError,
    TargetError,
    UnhandledMethodsError,
)
from dynserve.method import Kind, MethodInfo, ServiceInfo
from dynserve.schema import Schema
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
    "Kind",
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
    "UnhandledMethodsError",
]
