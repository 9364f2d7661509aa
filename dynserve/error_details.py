"""The messages of google.rpc that say more about an error, from plain Python values.

``StatusError(code, message, details=[…])`` sends them; :func:`detail_of` finds one in what a client
got. What each is for: https://google.aip.dev/193 and
https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto

There is none for ``DebugInfo``: it is for stack traces, and those stay in the log.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from google.protobuf.message import DecodeError, Message

from dynserve.status import StatusError

if TYPE_CHECKING:
    from google.rpc import error_details_pb2

__all__ = [
    "bad_request",
    "detail_of",
    "error_info",
    "help_links",
    "localized_message",
    "precondition_failure",
    "quota_failure",
    "request_info",
    "resource_info",
    "retry_info",
]

# What each name is called by what it is said of: a mapping, or pairs where a name comes twice.
Said: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
FieldsSaid: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str] | tuple[str, str, str]]
_Detail = TypeVar("_Detail", bound=Message)

_MAX_REASON, _MAX_KEY = 63, 64  # characters; both of error_details.proto, as the patterns are
_REASON = r"[A-Z][A-Z0-9_]+[A-Z0-9]"
_KEY = r"[a-z][a-zA-Z0-9_\-]+"
_URL = r"[a-zA-Z][a-zA-Z0-9+.\-]*:\S+"  # of a scheme: a relative one leads nowhere from a client
_LOCALE = r"[a-zA-Z]{2,8}(-[a-zA-Z0-9]{1,8})*"  # https://www.rfc-editor.org/rfc/bcp/bcp47.txt
_MAX_SECONDS = 315_576_000_000  # of a google.protobuf.Duration
_pattern = functools.cache(re.compile)  # when it is first needed


def bad_request(violations: FieldsSaid) -> error_details_pb2.BadRequest:
    """Which fields of a request are wrong, and how; for INVALID_ARGUMENT.

    Args:
        violations: ``{field: description}``, or pairs of them where a field has several; a pair may
            have a third text, the reason, in the form of that of :func:`error_info`. A field is
            named by its path from the request on: ``"items[0].name"``.

    Raises:
        TypeError, ValueError: the values are of other types, empty, or there are none.
    """
    example = "bad_request({'items[0].name': 'must not be empty'})"
    from google.rpc.error_details_pb2 import BadRequest

    message = BadRequest()
    for field, description, *reason in _tuples(violations, (2, 3), example):
        added = message.field_violations.add(
            field=_said("the field", field), description=_said("the description", description)
        )
        if reason:
            added.reason = _reason(reason[0])
    return message


def retry_info(delay: float | datetime.timedelta) -> error_details_pb2.RetryInfo:
    """How long to wait before the call is made again: in seconds, or a ``timedelta``.

    Raises:
        TypeError, ValueError: it is neither, negative, or more than a Duration can hold.
    """
    if isinstance(delay, datetime.timedelta):
        seconds: float = delay.total_seconds()
    else:
        seconds = delay
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"got {delay!r} as the delay, expected seconds or a timedelta")
    if not 0 <= seconds <= _MAX_SECONDS:
        raise ValueError(
            f"got {delay!r} as the delay, expected 0 to {_MAX_SECONDS} seconds from now on"
        )
    from google.rpc.error_details_pb2 import RetryInfo

    message = RetryInfo()
    message.retry_delay.FromNanoseconds(round(seconds * 1_000_000_000))
    return message


def error_info(
    reason: str, domain: str, metadata: Mapping[str, str] | None = None
) -> error_details_pb2.ErrorInfo:
    """What went wrong, for a program to act on; AIP-193 wants one with every error.

    Args:
        reason: a constant in UPPER_SNAKE_CASE of at most 63 characters, one of the domain's.
        domain: whose reason it is: ``"library.example.com"``.
        metadata: the values that the text of the error has in it, by lowerCamelCase names of at
            most 64 characters.

    Raises:
        TypeError, ValueError: one of them is of another type or form.
    """
    items = _mapping("the metadata", {} if metadata is None else metadata)
    for key in items:
        if not _pattern(_KEY).fullmatch(key) or len(key) > _MAX_KEY:
            raise ValueError(
                f"got {key!r} as a key of the metadata, expected letters, digits, '-' and '_' of"
                f" which the first is a-z, 2 to {_MAX_KEY} of them: 'bookId'"
            )
    from google.rpc.error_details_pb2 import ErrorInfo

    return ErrorInfo(reason=_reason(reason), domain=_said("the domain", domain), metadata=items)


def quota_failure(violations: Said) -> error_details_pb2.QuotaFailure:
    """Which quotas were exceeded; for RESOURCE_EXHAUSTED.

    Args:
        violations: ``{subject: description}`` or pairs; a subject is who or what the quota is of:
            ``"project:7"``, ``"clientip:203.0.113.9"``.

    Raises:
        TypeError, ValueError: the values are of other types, empty, or there are none.
    """
    example = "quota_failure({'project:7': 'more than 100 reads a minute'})"
    from google.rpc.error_details_pb2 import QuotaFailure

    message = QuotaFailure()
    for subject, description in _tuples(violations, (2,), example):
        message.violations.add(
            subject=_said("the subject", subject), description=_said("the description", description)
        )
    return message


def precondition_failure(
    violations: Iterable[tuple[str, str, str]],
) -> error_details_pb2.PreconditionFailure:
    """What must be so before the call can be made; for FAILED_PRECONDITION.

    Args:
        violations: type, subject and description of each: ``("TOS", "example.com", "the terms of
            service must be accepted first")``. The types are the service's own constants.

    Raises:
        TypeError, ValueError: the values are of other types, empty, or there are none.
    """
    example = "precondition_failure([('TOS', 'example.com', 'the terms must be accepted')])"
    from google.rpc.error_details_pb2 import PreconditionFailure

    message = PreconditionFailure()
    for kind, subject, description in _tuples(violations, (3,), example):
        message.violations.add(
            type=_said("the type", kind),
            subject=_said("the subject", subject),
            description=_said("the description", description),
        )
    return message


def resource_info(
    resource_type: str, resource_name: str, *, owner: str = "", description: str = ""
) -> error_details_pb2.ResourceInfo:
    """The resource that an error is about; for NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED.

    Args:
        resource_type: ``"library.example.com/Book"``, or a message's full name.
        resource_name: ``"shelves/1/books/2"``.
        owner: whose it is, such as ``"user:jane@example.com"``.
        description: what was to be done with it that could not be.

    Raises:
        TypeError, ValueError: one of them is not a str, or one of the first two is empty.
    """
    from google.rpc.error_details_pb2 import ResourceInfo

    return ResourceInfo(
        resource_type=_said("the resource type", resource_type),
        resource_name=_said("the resource name", resource_name),
        owner=_text("the owner", owner),
        description=_text("the description", description),
    )


def request_info(request_id: str, serving_data: str = "") -> error_details_pb2.RequestInfo:
    """What names this request in the server's log.

    Args:
        request_id: such as ``context.request_id``.
        serving_data: more for who runs the server to find the fault with, encrypted or harmless.

    Raises:
        TypeError, ValueError: one of them is not a str, or the first is empty.
    """
    from google.rpc.error_details_pb2 import RequestInfo

    return RequestInfo(
        request_id=_said("the request id", request_id),
        serving_data=_text("the serving data", serving_data),
    )


def help_links(links: Said) -> error_details_pb2.Help:
    """Where to read more, or to do something about the error.

    Args:
        links: ``{description: URL}`` or pairs.

    Raises:
        TypeError, ValueError: the values are of other types, empty, no URLs, or there are none.
    """
    example = "help_links({'Ask for more quota': 'https://example.com/quota'})"
    from google.rpc.error_details_pb2 import Help

    message = Help()
    for description, url in _tuples(links, (2,), example):
        if not _pattern(_URL).fullmatch(url):
            raise ValueError(f"got {url!r} as the URL of a link, expected a whole one: 'https://…'")
        message.links.add(description=_said("the description", description), url=url)
    return message


def localized_message(locale: str, message: str) -> error_details_pb2.LocalizedMessage:
    """The error in the user's own language; the status itself has the developer's.

    Args:
        locale: a language tag of BCP 47, such as ``"de-CH"``.
        message: what a user is shown.

    Raises:
        TypeError, ValueError: one of them is not a str, the locale is no tag, the text is empty.
    """
    if not _pattern(_LOCALE).fullmatch(_text("the locale", locale)):
        raise ValueError(f"got {locale!r} as the locale, expected a language tag such as 'de-CH'")
    from google.rpc.error_details_pb2 import LocalizedMessage

    return LocalizedMessage(locale=locale, message=_said("the message", message))


def detail_of(error: BaseException, kind: type[_Detail]) -> _Detail | None:
    """The first detail of this type in an error, as this class; None where it has none.

    A client's details are messages of its schema where that has them, and of generated code where
    not; here they are of the class that was asked for.

    Args:
        error: what a call raised. Any other than a ``StatusError`` has no details.
        kind: the class, such as ``google.rpc.error_details_pb2.RetryInfo``.

    Raises:
        TypeError: ``kind`` is not a message class.
    """
    given: object = kind
    if not (isinstance(given, type) and issubclass(given, Message)):
        raise TypeError(f"got {kind!r} as the type of a detail, expected a message class")
    for detail in error.status_details if isinstance(error, StatusError) else ():
        if isinstance(detail, kind):
            return detail
        name, data = _encoded(detail)
        if name == kind.DESCRIPTOR.full_name:
            try:
                return kind.FromString(data)
            except DecodeError:
                continue
    return None


def _encoded(detail: Message) -> tuple[str, bytes]:
    """The full name of the type and the bytes; of what an ``Any`` holds, for it is packed still."""
    if detail.DESCRIPTOR.full_name == "google.protobuf.Any":
        packed = cast("Any", detail)
        return packed.type_url.rpartition("/")[2], packed.value
    return detail.DESCRIPTOR.full_name, detail.SerializePartialToString()


def _tuples(given: object, sizes: tuple[int, ...], example: str) -> list[tuple[str, ...]]:
    """The items, each of so many texts; what they are is said by an example."""
    if isinstance(given, Mapping) and 2 in sizes:
        given = given.items()
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(f"got {given!r}, expected as in {example}")
    items = list(given)
    for item in items:
        is_tuple = isinstance(item, (tuple, list)) and len(item) in sizes
        if not is_tuple or not all(isinstance(text, str) for text in item):
            raise TypeError(f"got {item!r} among others, expected as in {example}")
    if not items:
        raise ValueError(f"got none, and a detail that says nothing helps nobody; write {example}")
    return [tuple(item) for item in items]


def _mapping(what: str, given: object) -> dict[str, str]:
    if not isinstance(given, Mapping) or not all(
        isinstance(text, str) for item in given.items() for text in item
    ):
        raise TypeError(f"got {given!r} as {what}, expected {{str: str}}")
    return dict(given)


def _text(what: str, given: object) -> str:
    if not isinstance(given, str):
        raise TypeError(f"got {given!r} as {what}, expected a str")
    return given


def _said(what: str, given: object) -> str:
    if not _text(what, given):
        raise ValueError(f"{what} is empty")
    return cast("str", given)


def _reason(given: object) -> str:
    reason = _text("the reason", given)
    if not _pattern(_REASON).fullmatch(reason) or len(reason) > _MAX_REASON:
        meant = re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", reason)).upper()
        meant = meant.strip("_")
        fix = f": {meant!r}" if _pattern(_REASON).fullmatch(meant[:_MAX_REASON]) else ""
        raise ValueError(
            f"got {reason!r} as the reason, expected UPPER_SNAKE_CASE of 3 to {_MAX_REASON}"
            f" characters{fix if len(meant) <= _MAX_REASON else ''}"
        )
    return reason
