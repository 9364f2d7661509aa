"""A bounded fetch of a small document over HTTP."""

from __future__ import annotations

import time
import urllib.parse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from http.client import HTTPResponse

__all__ = ["checked_url", "fetch"]

MAX_BYTES = 1024 * 1024
_CHUNK = 65536


def checked_url(url: str) -> str:
    """The URL, if it is one that :func:`fetch` fetches.

    Raises:
        ValueError: it is not of http or https, has no host, or has a password in it.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        is_fit = parts.scheme in ("http", "https") and bool(parts.hostname)
        has_port = parts.port != 0
    except ValueError:
        is_fit = has_port = False
    if not is_fit or not has_port:
        raise ValueError(f"got {url!r}, expected a URL such as https://issuer.example/jwks.json")
    if parts.username is not None:
        raise ValueError("the URL has a user name in it, which is not sent; remove it")
    return url


def fetch(url: str, seconds: float) -> bytes:
    """The document at a URL: at most 1 MiB, whole, and not by way of a redirect.

    A redirect could lead from https to http, and to where nobody looked. Proxies are those of the
    environment (``https_proxy``).

    Args:
        url: of http or https.
        seconds: for each wait, and for all of the document.

    Raises:
        OSError, ValueError: with a text that says what went wrong.
    """
    import http.client  # seldom needed, and slow to import
    import urllib.error
    import urllib.request

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    headers = {"Accept": "application/jwk-set+json, application/json", "User-Agent": "dynserve"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # checked_url
    deadline = time.monotonic() + seconds
    try:
        with opener.open(request, timeout=seconds) as response:
            return _read(response, deadline)
    except urllib.error.HTTPError as error:
        with error:
            moved = error.headers.get("location") if 300 <= error.code < 400 else None
        instead = f"; redirects are not followed, write {moved[:200]!r}" if moved else ""
        raise ValueError(f"the server answered with HTTP {error.code}{instead}") from error
    except http.client.HTTPException as error:
        raise ValueError("the server's answer is not HTTP") from error


def _read(response: HTTPResponse, deadline: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := response.read1(_CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            raise ValueError(f"the answer is larger than {MAX_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer took too long")
    return b"".join(chunks)
