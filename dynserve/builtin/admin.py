"""Admin services: channelz, and what runs right now."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dynserve.binding import bind
from dynserve.errors import DynserveError
from dynserve.routes import LateService, Routes
from dynserve.schema import Schema
from dynserve.service import Service
from dynserve.unit import Unit

if TYPE_CHECKING:
    from dynserve.auth.policy import Policy

__all__ = ["admin_services"]

_CHANNELZ = "grpc.channelz.v1.Channelz"
_ADMIN = "dynserve.admin.v1.Admin"
_PROTO = """
syntax = "proto3";

package dynserve.admin.v1;

// What operators ask a server of dynserve.
service Admin {
  // What runs right now: calls, threads, tasks.
  rpc Dump(DumpRequest) returns (DumpResponse);
}

message DumpRequest {}

message DumpResponse {
  // For people to read; its form may change.
  string text = 1;
}
"""


def admin_services(dump: Callable[[], str], policy: Policy | None) -> list[LateService]:
    """The services, to be bound; ``policy`` says who may call them.

    Raises:
        DynserveError: grpcio-channelz is not installed.
    """
    try:
        from grpc_channelz.v1 import channelz, channelz_pb2
    except ImportError as error:
        raise DynserveError(
            "admin needs grpcio-channelz; run: pip install 'dynserve[admin]'"
        ) from error

    def bound_channelz() -> Routes:
        schema, service = Schema.load(channelz_pb2), Service(_CHANNELZ)
        service.add_servicer(channelz.ChannelzServicer())
        return bind([Unit(schema, [service], policy=policy)])

    def bound_admin() -> Routes:
        schema, service = Schema.load(_PROTO), Service(_ADMIN)

        async def answer(_request: Any) -> dict[str, str]:
            return {"text": dump()}

        service.add(answer, "Dump")
        return bind([Unit(schema, [service], policy=policy)])

    return [LateService(_CHANNELZ, bound_channelz), LateService(_ADMIN, bound_admin)]
