"""``dynserve call``: call a method of any server."""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from dynserve.errors import DynserveError, MessageError
from dynserve.status import DETAILS_KEY, StatusError

from .completion import complete_method
from .options import Seconds, connection_options
from .progress import waiting
from .report import Report
from .stream import DataError, chunks_of, is_streamed, json_values, text_values
from .target import Target, refuse_sources
from .writer import Writer

if TYPE_CHECKING:
    from dynserve.client.sync import Client
    from dynserve.client.sync_call import Method

__all__ = ["call"]

_GOOGLES = "google.rpc."
# How a request names the type of what an Any in it holds.
_CONTENTS = {
    "json": re.compile(r'"@type"\s*:\s*"[^"]*/([\w.]+)"'),
    "text": re.compile(r"\[[^\[\]]*/\s*([\w.]+)\s*\]"),
}


@click.command()
@click.argument("target", metavar="ADDR")
@click.argument("method", metavar="PKG.SERVICE/METHOD", shell_complete=complete_method)
@click.option(
    "-d", "--data", metavar="JSON|@FILE|-",
    help="The request; for a stream several, concatenated or one on each line. @FILE reads a file,"
    " - reads standard input, and each message is sent as soon as it is read. Without --data an"
    " empty request is sent, or a stream of none.",
)  # fmt: skip
@click.option(
    "--timeout", type=Seconds(), metavar="SECONDS",
    help="The deadline of the call; the server is told.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(("json", "text")), default="json", show_default=True,
    help="The form of requests and responses: JSON, or protobuf's text format with a record"
    " separator (0x1E) between messages.",
)  # fmt: skip
@click.option(
    "--emit-defaults",
    is_flag=True,
    help="Print fields that have their default value, too (JSON only).",
)
@click.option(
    "--compact/--indent", default=None,
    help="Print each response on one line, or on several.  [default: --indent on a terminal]",
)  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Print metadata and timing to standard error.")
@connection_options
def call(
    target: Target,
    method: str,
    data: str | None,
    timeout: float | None,
    form: str,
    emit_defaults: bool,
    compact: bool | None,
    verbose: bool,
) -> None:
    """Call a method of a server.

    ADDR is HOST:PORT or unix:PATH. Messages are JSON; those of a stream are sent as they are read
    and printed as they arrive. The exit code is 0 for the status OK, and 64 + the status code for
    any other.

    \b
    Examples:
      dynserve call localhost:50051 helloworld.Greeter/SayHello -d '{"name": "you"}'
      dynserve call localhost:50051 chat.ChatService/Chat -d -
    """
    refuse_sources(target, "call")
    if emit_defaults and form == "text":
        click.echo("Warning: --emit-defaults has no effect on the text format", err=True)
    is_compact = not sys.stdout.isatty() if compact is None else compact
    report = Report(verbose)
    with target.connect() as client:
        with waiting("Asking the server"):
            called = client.method(method)
        report.resolved(called)
        request = _request(target, client, called, data, form)
        write = Writer(client, form, is_compact, emit_defaults)
        try:
            _exchange(called, request, timeout, write, report, target)
        except StatusError as error:
            _load_details(client, error)
            raise


def _exchange(
    method: Method, request: Any, timeout: float | None, write: Writer, report: Report, to: Target
) -> None:
    """Send, and print each response as it comes."""
    report.sent(to.metadata)
    if method.info.kind.response_streaming:
        call = method(request, timeout=timeout)
        responses: Iterable[Any] = call
    else:
        call = method.future(request, timeout=timeout)
        responses = (future.result() for future in (call,))
    for response in report.received(call, responses):
        write(response)


def _request(target: Target, client: Client, method: Method, data: str | None, form: str) -> Any:
    """What the method is called with; all of it is known to fit, unless it is read on the way."""
    requests = _messages(client, method, data, form)
    if method.info.kind.request_streaming:
        return requests if data is None or is_streamed(data) else iter(list(requests))
    given = target.within_max_time(lambda: list(itertools.islice(requests, 2)))
    if len(given) > 1:
        raise DataError(f"--data: {method.info} takes one request, and this is more than one.")
    return given[0] if given else None


def _messages(client: Client, method: Method, data: str | None, form: str) -> Iterator[Any]:
    """The messages of ``--data``, each when it is asked for."""
    if data is None:
        return iter(())
    values = text_values if form == "text" else json_values
    return _parsed(client, method, values(chunks_of(data)), form)  # looks for the file now


def _parsed(client: Client, method: Method, texts: Iterable[str], form: str) -> Iterator[Any]:
    schema = client.schema
    parse = schema.from_text if form == "text" else schema.from_json
    for number, text in enumerate(texts, 1):
        which = f", message {number}" if method.info.kind.request_streaming or number > 1 else ""
        try:
            try:
                message: Any = parse(text, method.info.request)
            except MessageError:
                if not _load_contents(client, text, form):
                    raise
                message = parse(text, method.info.request)
        except MessageError as error:
            raise DataError(f"--data{which}: {error}") from error
        if not message.IsInitialized():
            missing = ", ".join(message.FindInitializationErrors())
            raise DataError(f"--data{which}: required fields are missing: {missing}.")
        yield message


def _load_contents(client: Client, text: str, form: str) -> bool:
    """Have the schema hold the types that a text names for its ``Any``; whether there are some."""
    names = [name for name in _CONTENTS[form].findall(text) if not client.schema.has_message(name)]
    _load(client, names)
    return bool(names)


def _load(client: Client, names: Iterable[str]) -> None:
    """Have the schema hold these types, if anyone tells of them."""
    for name in names:
        with contextlib.suppress(DynserveError, StatusError):
            client.load(name)


def _load_details(client: Client, error: StatusError) -> None:
    """Have the schema hold the types of an error's details, if anyone tells of them.

    What is not known of google.rpc here, nobody else is asked for.
    """
    from google.protobuf.message import DecodeError
    from google.rpc.status_pb2 import Status

    data = dict(error.trailing_metadata()).get(DETAILS_KEY)
    if not isinstance(data, bytes):
        return
    try:
        details = Status.FromString(data).details
    except DecodeError:
        return
    names = (detail.type_url.rpartition("/")[2] for detail in details)
    _load(client, [name for name in names if not name.startswith(_GOOGLES)])
