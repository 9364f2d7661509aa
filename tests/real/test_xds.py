"""A server that a control plane configures, by xDS: which is itself served by dynserve.

Only what a server of gRPC asks for, https://github.com/grpc/proposal/blob/master/A36-xds-for-servers.md:
a listener for each address, with its routes inside. The messages are the parts of Envoy's that
stand here, under the same names and numbers; what a peer sends beside them is passed over.

gRPC binds nothing in this mode before it is told to: ``add_port`` returns -1, for port 0 and for a
port that is taken too.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dynserve import App
from tests.running import ROOT

pytestmark = pytest.mark.real

SECONDS = 30
TEMPLATE = "served/%s"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"

FILES = {
    "envoy/service/discovery/v3/ads.proto": """
syntax = "proto3";
package envoy.service.discovery.v3;
import "google/protobuf/any.proto";
import "google/rpc/status.proto";
message DiscoveryRequest {
  string version_info = 1;
  repeated string resource_names = 3;
  string type_url = 4;
  string response_nonce = 5;
  google.rpc.Status error_detail = 6;
}
message DiscoveryResponse {
  string version_info = 1;
  repeated google.protobuf.Any resources = 2;
  string type_url = 4;
  string nonce = 5;
}
service AggregatedDiscoveryService {
  rpc StreamAggregatedResources(stream DiscoveryRequest) returns (stream DiscoveryResponse);
}
""",
    "envoy/config/route/v3/route.proto": """
syntax = "proto3";
package envoy.config.route.v3;
message RouteConfiguration { string name = 1; repeated VirtualHost virtual_hosts = 2; }
message VirtualHost { string name = 1; repeated string domains = 2; repeated Route routes = 3; }
message Route { RouteMatch match = 1; NonForwardingAction non_forwarding_action = 18; }
message RouteMatch { optional string prefix = 1; }
message NonForwardingAction {}
""",
    "envoy/extensions/filters/http/router/v3/router.proto": """
syntax = "proto3";
package envoy.extensions.filters.http.router.v3;
message Router {}
""",
    "envoy/extensions/filters/network/http_connection_manager/v3/manager.proto": """
syntax = "proto3";
package envoy.extensions.filters.network.http_connection_manager.v3;
import "envoy/config/route/v3/route.proto";
import "google/protobuf/any.proto";
message HttpConnectionManager {
  envoy.config.route.v3.RouteConfiguration route_config = 4;
  repeated HttpFilter http_filters = 5;
}
message HttpFilter { string name = 1; google.protobuf.Any typed_config = 4; }
""",
    "envoy/config/listener/v3/listener.proto": """
syntax = "proto3";
package envoy.config.listener.v3;
import "google/protobuf/any.proto";
message Listener { string name = 1; Address address = 2; FilterChain default_filter_chain = 25; }
message Address { SocketAddress socket_address = 1; }
message SocketAddress { string address = 2; uint32 port_value = 3; }
message FilterChain { repeated Filter filters = 3; string name = 7; }
message Filter { string name = 1; google.protobuf.Any typed_config = 4; }
""",
}
CONFIG = "envoy.config"
MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "envoy.extensions.filters.http.router.v3.Router"

SERVER = """
import sys
from dynserve import App

app = App('syntax = "proto3"; package a; message M {} service S { rpc Do(M) returns (M); }')
app.add(lambda request: request, "a.S/Do")
app.run(sys.argv[1], xds=True, engine="queue")
"""


class ControlPlane:
    """Tells every listener that is asked for to serve all calls."""

    def __init__(self, folder: Path) -> None:
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.app = App(folder)
        self.app.add(
            self.stream,
            "envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        )
        self.answers: queue.Queue[tuple[str, str]] = queue.Queue()  # names, and what is wrong

    def stream(self, requests: Any) -> Any:
        for request in requests:
            if request.type_url != LISTENER:
                continue
            if request.response_nonce:
                names = ",".join(request.resource_names)
                self.answers.put((names, request.error_detail.message))
                continue
            yield {
                "version_info": "1",
                "nonce": "1",
                "type_url": LISTENER,
                "resources": [self.listener(name) for name in request.resource_names],
            }

    def listener(self, name: str) -> Any:
        host, _, port = name.removeprefix(TEMPLATE % "").rpartition(":")
        route = {"match": {"prefix": ""}, "non_forwarding_action": {}}
        manager = self.make(
            MANAGER,
            route_config={
                "name": "all",
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
            },
            http_filters=[{"name": "router", "typed_config": self.packed(self.make(ROUTER))}],
        )
        return self.packed(
            self.make(
                f"{CONFIG}.listener.v3.Listener",
                name=name,
                address={"socket_address": {"address": host, "port_value": int(port)}},
                default_filter_chain={
                    "name": "all",
                    "filters": [{"name": "calls", "typed_config": self.packed(manager)}],
                },
            )
        )

    def make(self, kind: str, /, **values: Any) -> Any:
        return self.app.schema.message(kind)(**values)

    def packed(self, message: Any) -> Any:
        packed = self.app.schema.message("google.protobuf.Any")()
        packed.Pack(message)
        return packed


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def xds_server(address: str, control_plane: str) -> Iterator[subprocess.Popen[str]]:
    bootstrap = {
        "xds_servers": [
            {
                "server_uri": control_plane,
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }
        ],
        "node": {"id": "test"},
        "server_listener_resource_name_template": TEMPLATE,
    }
    env = {**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)}
    env.pop("GRPC_XDS_BOOTSTRAP", None)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, address],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=SECONDS)
            finally:
                process.kill()


def test_a_control_plane_configures_the_server(tmp_path: Path) -> None:
    """It listens once it was told to, and serves calls."""
    plane = ControlPlane(tmp_path)
    address = f"127.0.0.1:{free_port()}"
    with (
        plane.app.server("127.0.0.1:0").in_thread() as control,
        xds_server(address, control.addresses[0]) as process,
    ):
        try:
            answered = plane.answers.get(timeout=SECONDS)
        except queue.Empty:
            process.terminate()
            pytest.fail(process.communicate(timeout=SECONDS)[0])
        assert answered == (TEMPLATE % address, "")
        with grpc.insecure_channel(address) as channel:
            call: Any = channel.unary_unary("/a.S/Do")
            assert call(b"", timeout=SECONDS, wait_for_ready=True) == b""
