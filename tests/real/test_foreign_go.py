"""The client against grpc-go: the test server and the bank demo of grpcurl, which reflect."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from dynserve import TLS, StatusError
from tests.authority import Authority
from tests.real.callers import Outcome, Printed, Send, command
from tests.real.conftest import Connect, Start

pytestmark = pytest.mark.real

PROTO = """\
syntax = "proto3";

package testing;

option go_package = ".;testing";

service TestService {
  rpc EmptyCall(Empty) returns (Empty);
  rpc UnaryCall(SimpleRequest) returns (SimpleResponse);
  rpc StreamingOutputCall(StreamingOutputCallRequest) returns (stream StreamingOutputCallResponse);
  rpc StreamingInputCall(stream StreamingInputCallRequest) returns (StreamingInputCallResponse);
  rpc FullDuplexCall(stream StreamingOutputCallRequest) returns (stream StreamingOutputCallResponse);
  rpc HalfDuplexCall(stream StreamingOutputCallRequest) returns (stream StreamingOutputCallResponse);
}

service UnimplementedService {
  rpc UnimplementedCall(Empty) returns (Empty);
}

message Empty {}

message Payload {
  PayloadType type = 1;
  bytes body = 2;
}

message EchoStatus {
  int32 code = 1;
  string message = 2;
}

message SimpleRequest {
  PayloadType response_type = 1;
  int32 response_size = 2;
  Payload payload = 3;
  bool fill_username = 4;
  bool fill_oauth_scope = 5;
  EchoStatus response_status = 7;
}

message SimpleResponse {
  Payload payload = 1;
  string username = 2;
  string oauth_scope = 3;
}

message StreamingInputCallRequest {
  Payload payload = 1;
}

message StreamingInputCallResponse {
  int32 aggregated_payload_size = 1;
}

message ResponseParameters {
  int32 size = 1;
  int32 interval_us = 2;
}

message StreamingOutputCallRequest {
  PayloadType response_type = 1;
  repeated ResponseParameters response_parameters = 2;
  Payload payload = 3;
  EchoStatus response_status = 7;
}

message StreamingOutputCallResponse {
  Payload payload = 1;
}

enum PayloadType {
  COMPRESSABLE = 0;
  UNCOMPRESSABLE = 1;
  RANDOM = 2;
}
"""  # noqa: E501 - as it is exported


@pytest.fixture
def address(tool: Callable[[str], str], start: Start) -> str:
    """The test server: ``testing.TestService``, which answers as it is told."""
    return start(tool("testserver"), "-q")


@pytest.fixture
def bank(tool: Callable[[str], str], start: Start, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bank demo, whose services are in no package; it keeps accounts for who authenticates."""
    accounts = tmp_path_factory.getbasetemp() / "accounts.json"
    return start(tool("bankdemo"), "-port", "0", "-datafile", str(accounts))


def test_services(connect: Connect, address: str) -> None:
    """The services are those that the server registered, both versions of reflection among them."""
    assert connect(address).services() == (
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "testing.TestService",
    )


@pytest.mark.parametrize(
    ("method", "sent", "responses"),
    [
        ("EmptyCall", None, [{}]),
        (
            "UnaryCall",
            {"payload": {"type": "UNCOMPRESSABLE", "body": b"\x00\x01\xff"}},
            [{"payload": {"type": "UNCOMPRESSABLE", "body": "AAH/"}}],
        ),
        (
            "StreamingOutputCall",
            {"response_type": "RANDOM", "response_parameters": [{"size": 1}, {"size": 2}]},
            [
                {"payload": {"type": "RANDOM", "body": "AA=="}},
                {"payload": {"type": "RANDOM", "body": "AAE="}},
            ],
        ),
        (
            "StreamingInputCall",
            [{"payload": {"body": b"123"}}, {"payload": {"body": b"45"}}],
            [{"aggregatedPayloadSize": 5}],
        ),
        (
            "HalfDuplexCall",
            [{"payload": {"body": b"1"}}, {"payload": {"body": b"2"}}],
            [{"payload": {"body": "MQ=="}}, {"payload": {"body": "Mg=="}}],
        ),
    ],
    ids=["empty", "unary-unary", "unary-stream", "stream-unary", "stream-stream"],
)
def test_call(
    connect: Connect, address: str, method: str, sent: object, responses: list[object]
) -> None:
    """All four kinds of method are called, with metadata both ways."""
    metadata = [("reply-with-headers", "a: b"), ("reply-with-trailers", "c: d")]
    outcome = connect(address).call(f"testing.TestService/{method}", sent, metadata=metadata)
    assert outcome == Outcome(responses, initial={"a": "b"}, trailing={"c": "d"})


def test_turns(connect: Connect, address: str) -> None:
    """On a stream both ways each request is answered before the next one is sent."""
    outcome = connect(address).converse(
        "testing.TestService/FullDuplexCall",
        Send({"response_parameters": [{"size": 1}]}),
        Send({"response_parameters": [{"size": 2}, {"size": 3}]}, answers=2),
        Send({}, answers=0),
    )
    bodies = ["AA==", "AAE=", "AAEC"]
    assert outcome == Outcome([{"payload": {"body": body}} for body in bodies])


@pytest.mark.parametrize(
    ("method", "sent", "when", "responses"),
    [
        ("EmptyCall", None, "early", []),
        (
            "StreamingOutputCall",
            {"response_parameters": [{"size": 1}]},
            "late",
            [{"payload": {"body": "AA=="}}],
        ),
        ("StreamingInputCall", [{"payload": {}}], "late", []),
        (
            "HalfDuplexCall",
            [{"payload": {"body": b"1"}}],
            "late",
            [{"payload": {"body": "MQ=="}}],
        ),
    ],
    ids=["unary-unary", "unary-stream", "stream-unary", "stream-stream"],
)
def test_error(
    connect: Connect, address: str, method: str, sent: object, when: str, responses: list[object]
) -> None:
    """A status comes after the responses, with its text and its metadata."""
    metadata = {f"fail-{when}": "8", "reply-with-trailers": "c: d"}
    outcome = connect(address).call(f"testing.TestService/{method}", sent, metadata=metadata)
    assert outcome == Outcome(responses, "RESOURCE_EXHAUSTED", "fail", trailing={"c": "d"})


def test_bank(connect: Connect, bank: str) -> None:
    """A service of no package is called, with oneofs, 64-bit numbers, Empty and Timestamp."""
    customer = connect(bank, metadata={"authorization": f"token {connect.__name__}"})
    opened = customer.call("Bank/OpenAccount", type="CHECKING", initial_deposit_cents=700)
    number = opened.responses[0]["accountNumber"]
    account = {"accountNumber": number, "type": "CHECKING", "balanceCents": 700}
    assert opened == Outcome([account])
    transfer = {
        "source_account_number": int(number),
        "external_dest": {"ach_routing_number": 2**63, "ach_account_number": 5},
        "amount_cents": 300,
    }
    left = {"srcAccountNumber": number, "srcBalanceCents": 400}
    assert customer.call("Bank/Transfer", transfer) == Outcome([left])
    account["balanceCents"] = 400
    assert customer.call("Bank/GetAccounts") == Outcome([{"accounts": [account]}])
    listed = customer.call("Bank/GetTransactions", account_number=int(number))
    dates = [transaction.pop("date") for transaction in listed.responses]
    assert dates == sorted(dates)
    assert listed == Outcome(
        [
            {
                "accountNumber": number,
                "seqNumber": "1",
                "amountCents": 700,
                "desc": "initial deposit",
            },
            {
                "accountNumber": number,
                "seqNumber": "2",
                "amountCents": -300,
                "desc": "transfer to ACH 9223372036854775808:000005",
            },
        ]
    )
    later = {"account_number": int(number), "start": "2999-01-01T00:00:00Z"}
    assert customer.call("Bank/GetTransactions", later) == Outcome()


def test_bank_errors(connect: Connect, bank: str) -> None:
    """What the server refuses is told in its own words."""
    deposit = {"account_number": 2**64 - 1, "amount_cents": 1, "source": "CASH"}
    assert connect(bank).call("Bank/Deposit", deposit) == Outcome(
        code="UNAUTHENTICATED", text="Unauthenticated"
    )
    customer = connect(bank, metadata={"authorization": "token nobody"})
    assert customer.call("Bank/Deposit", deposit) == Outcome(
        code="NOT_FOUND", text="you have no account numbered 18446744073709551615"
    )


def test_chat(connect: Connect, bank: str) -> None:
    """A session is opened, and what comes after its end is refused, after the responses."""
    name = connect.__name__.lower()
    outcome = connect(bank, metadata={"authorization": f"token {name}"}).converse(
        "Support/ChatCustomer",
        Send({"init": {}}),
        Send({"hang_up": "VOID"}, answers=0),
        Send({"msg": "Hello?"}, answers=0),
    )
    session = outcome.responses[0]["session"].pop("sessionId")
    assert re.fullmatch(r"\d{6}", session)
    assert outcome == Outcome(
        [{"session": {"customerName": name}}],
        "FAILED_PRECONDITION",
        "never called init, no chat session for message",
    )


def test_mutual_tls(
    connect: Connect, tool: Callable[[str], str], start: Start, authorities: list[Authority]
) -> None:
    """Server and client prove to each other who they are; who cannot is not served."""
    ours, theirs = (authority.folder for authority in authorities)
    authorities[0].issue("server")
    for authority in authorities:
        authority.issue("client")
    files = (f"-cacert={ours}/ca.crt", f"-cert={ours}/server.crt", f"-key={ours}/server.key")
    address = start(tool("testserver"), "-q", "-requirecert", *files)

    def call_as(who: Path) -> Outcome:
        proof = {"cert": who / "client.crt", "key": who / "client.key"}
        tls = TLS(ca=ours / "ca.crt", **proof, server_name="server")
        return connect(address, tls=tls).call("testing.TestService/EmptyCall")

    assert call_as(ours) == Outcome([{}])
    with pytest.raises(StatusError) as caught:
        call_as(theirs)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    words = ["--cacert", ours / "ca.crt", "--server-name", "server"]
    words += ["--cert", ours / "client.crt", "--key", ours / "client.key"]
    assert command("call", address, "testing.TestService/EmptyCall", *words) == Printed(
        0, "{}\n", ""
    )


def test_list_command(address: str, bank: str) -> None:
    """``dynserve list`` prints services, and methods in the order of the file."""
    assert command("list", address) == Printed(
        0,
        "grpc.reflection.v1.ServerReflection\n"
        "grpc.reflection.v1alpha.ServerReflection\n"
        "testing.TestService\n",
        "",
    )
    assert command("list", bank, "Support") == Printed(
        0, "Support/ChatCustomer\nSupport/ChatAgent\n", ""
    )
    assert command("list", bank, "Suport") == Printed(
        1, "", f"Error: no service 'Suport' on {bank}; did you mean 'Support'?\n"
    )


def test_describe_command(address: str, bank: str) -> None:
    """``dynserve describe`` prints services, methods, messages, enums and fields."""
    printed = command(
        "describe",
        address,
        "testing.SimpleRequest",
        "testing.PayloadType",
        "testing.TestService/StreamingInputCall",
        "testing.SimpleRequest.payload",
    )
    assert printed == Printed(
        0,
        """\
// testing.SimpleRequest, in test.proto

message SimpleRequest {
  testing.PayloadType response_type = 1;
  int32 response_size = 2;
  testing.Payload payload = 3;
  bool fill_username = 4;
  bool fill_oauth_scope = 5;
  testing.EchoStatus response_status = 7;
}

// testing.PayloadType, in test.proto

enum PayloadType {
  COMPRESSABLE = 0;
  UNCOMPRESSABLE = 1;
  RANDOM = 2;
}

// testing.TestService.StreamingInputCall, in test.proto

rpc StreamingInputCall(stream testing.StreamingInputCallRequest) returns (testing.StreamingInputCallResponse);

// testing.SimpleRequest.payload, in test.proto

testing.Payload payload = 3;
""",  # noqa: E501 - as it is printed
        "",
    )
    assert command("describe", bank, "Bank.Transfer", "--json-template").out == (
        """\
{
  "source_account_number": 1,
  "dest_account_number": 1,
  "amount_cents": 1,
  "desc": "text"
}
"""
    )


@pytest.mark.parametrize(
    ("method", "words", "printed"),
    [
        (
            "UnaryCall",
            ["-d", '{"payload": {"body": "AAH/"}}'],
            Printed(0, '{"payload": {"body": "AAH/"}}\n', ""),
        ),
        (
            "StreamingOutputCall",
            ["-d", '{"response_parameters": [{"size": 1}, {"size": 2}]}', "-H", "fail-late: 8"],
            Printed(
                64 + 8,
                '{"payload": {"body": "AA=="}}\n{"payload": {"body": "AAE="}}\n',
                "Error: RESOURCE_EXHAUSTED: fail\n",
            ),
        ),
        (
            "StreamingInputCall",
            ["-d", '{"payload": {"body": "AAH/"}} {"payload": {"body": "AAH/"}}'],
            Printed(0, '{"aggregatedPayloadSize": 6}\n', ""),
        ),
        (
            "FullDuplexCall",
            ["--format", "text", "-d", "response_parameters { size: 2 }"],
            Printed(0, 'payload { body: "\\000\\001" }\n', ""),
        ),
        ("EmptyCall", ["-H", "fail-early: 5"], Printed(64 + 5, "", "Error: NOT_FOUND: fail\n")),
    ],
    ids=["unary-unary", "unary-stream", "stream-unary", "stream-stream", "error"],
)
def test_call_command(address: str, method: str, words: list[str], printed: Printed) -> None:
    """``dynserve call`` prints responses, and exits with the status."""
    assert command("call", address, f"testing.TestService/{method}", *words) == printed


def test_call_of_what_nobody_serves(address: str) -> None:
    """A service of a file that the server knows, but does not serve, is refused by the server."""
    assert command("call", address, "testing.UnimplementedService/UnimplementedCall") == Printed(
        64 + 12, "", "Error: UNIMPLEMENTED: unknown service testing.UnimplementedService\n"
    )


def test_export_command(connect: Connect, address: str, tmp_path: Path) -> None:
    """``dynserve export`` writes what the server tells, and it serves in place of reflection."""
    folder, descriptors = tmp_path / "protos", tmp_path / "set.binpb"
    printed = command(
        "export", address, "testing.TestService", "--proto-dir", folder, "-o", descriptors
    )
    assert printed == Printed(
        0,
        "",
        f"{folder}: 1 .proto file\n{descriptors}: 1 file, {descriptors.stat().st_size} bytes\n",
    )
    assert [path.name for path in folder.iterdir()] == ["test.proto"]
    assert (folder / "test.proto").read_text() == PROTO
    for source in (folder, descriptors):
        request = {"payload": {"body": b"x"}}
        outcome = connect(address, source).call("testing.TestService/UnaryCall", request)
        assert outcome == Outcome([{"payload": {"body": "eA=="}}])
