"""``dynserve call``: call a method of any server."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from dynserve.errors import MessageError

from .completion import complete_method
from .stream import chunks_of, json_values, text_values
from .target import Target, connection_options, refuse_sources, target_argument

if TYPE_CHECKING:
    from dynserve.client.sync import Client
    from dynserve.client.sync_call import Method

__all__ = ["call"]


class _DataError(click.ClickException):
    """What was given as data is not what the method takes."""

    exit_code = 2


@click.command()
@target_argument
@click.argument("method", metavar="PKG.SERVICE/METHOD", shell_complete=complete_method)
@click.option(
    "-d", "--data", metavar="JSON|@FILE|-",
    help="The request, or those of a stream beside each other or a line each. @FILE reads a file; -"
    " reads standard input, and sends each message as it comes. Without it an empty request is"
    " sent, or none where they are a stream.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="The deadline of the call, which the server is told.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(("json", "text")), default="json", show_default=True,
    help="Of requests and responses: JSON, or protobuf's text format, with a record separator"
    " (0x1E) between messages.",
)  # fmt: skip
@click.option("--emit-defaults", is_flag=True, help="Print fields that have their default, too.")
@click.option(
    "--compact/--indent", default=None,
    help="Print each response on one line, or over several.  [default: --indent on a terminal]",
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
    """Call a method of a server and print what it answers.

    The exit code is 0 for the status OK, and 64 + the status code for any other.

    \b
    Examples:
      dynserve call localhost:50051 helloworld.Greeter/SayHello -d '{"name": "you"}'
      dynserve call localhost:50051 chat.ChatService/Chat -d -
    """
    refuse_sources(target, "call")
    is_compact = not sys.stdout.isatty() if compact is None else compact
    with target.connect() as client:
        report = _Report(verbose)
        called = client.method(method)
        report.resolved(called)
        write = _Writer(client, form, is_compact, emit_defaults)
        requests = _requests(client, called, data, form)
        limits = [limit for limit in (timeout, target.remaining()) if limit is not None]
        report.sent(target.header)
        _exchange(called, requests, min(limits, default=None), write, report)


def _exchange(
    method: Method, requests: Iterator[Any], timeout: float | None, write: _Writer, report: _Report
) -> None:
    """Send, and print each response as it comes."""
    kind = method.info.kind
    request = requests if kind.request_streaming else _only(requests, method)
    if kind.response_streaming:
        call = method(request, timeout=timeout)
        responses: Iterable[Any] = call
    else:
        call = method.future(request, timeout=timeout)
        responses = (future.result() for future in (call,))
    count = 0
    try:
        for response in report.received(call, responses):
            write(response)
            count += 1
    finally:
        report.ended(call, count)


def _only(requests: Iterator[Any], method: Method) -> Any:
    given = list(itertools.islice(requests, 2))
    if len(given) > 1:
        raise _DataError(f"{method.info} takes one request, --data has more.")
    return given[0] if given else None


def _requests(client: Client, method: Method, data: str | None, form: str) -> Iterator[Any]:
    """The messages of ``--data``, each when it is asked for."""
    if data is None:
        return
    message = method.info.request
    values = text_values if form == "text" else json_values
    for number, text in enumerate(values(chunks_of(data)), 1):
        try:
            yield (
                client.schema.from_text(text, message)
                if form == "text"
                else (client.schema.from_json(text, message))
            )
        except MessageError as error:
            which = "" if number == 1 else f", message {number}"
            raise _DataError(f"--data{which}: {error}") from error


class _Writer:
    """Prints responses."""

    def __init__(self, client: Client, form: str, compact: bool, emit_defaults: bool) -> None:
        self._client = client
        self._is_text = form == "text"
        self._is_first = True
        self._options: dict[str, Any] = {"indent": None if compact else 2, "ensure_ascii": False}
        if emit_defaults:
            self._options["always_print_fields_with_no_presence"] = True
        self._compact = compact

    def __call__(self, response: Any) -> None:
        self._client.load_contents(response)
        if self._is_text:
            if not self._is_first:
                click.echo("\x1e")
            self._is_first = False
            click.echo(self._client.schema.to_text(response), nl=False)
        else:
            click.echo(self._client.schema.to_json(response, **self._options))


class _Report:
    """What ``--verbose`` says, on standard error."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._start = time.perf_counter()
        self._sent = self._start

    def resolved(self, method: Method) -> None:
        self._say(f"* {method.info} ({method.info.kind}), found in {self._since(self._start)}")

    def sent(self, headers: Iterable[str]) -> None:
        self._sent = time.perf_counter()
        for header in headers:
            self._say(f"> {header}")

    def received(self, call: Any, responses: Iterable[Any]) -> Iterator[Any]:
        """The responses, with what comes before the first of them said first."""
        for number, response in enumerate(responses):
            if number == 0:
                self._metadata(call.initial_metadata())
                self._say(f"* first response after {self._since(self._sent)}")
            yield response

    def ended(self, call: Any, count: int) -> None:
        if self._verbose and not call.is_active():
            self._metadata(call.trailing_metadata())
            responses = "1 response" if count == 1 else f"{count} responses"
            said = f"* {call.code().name}, {responses}, {self._since(self._sent)} in all"
            self._say(said)

    def _metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        for name, value in metadata:
            self._say(f"< {name}: {_shown(value)}")

    def _say(self, line: str) -> None:
        if self._verbose:
            click.echo(line, err=True)

    @staticmethod
    def _since(start: float) -> str:
        return f"{(time.perf_counter() - start) * 1000:.1f} ms"


def _shown(value: str | bytes) -> str:
    if isinstance(value, str):
        return value
    import base64

    return base64.b64encode(value).decode()
