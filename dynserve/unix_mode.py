"""Unix sockets: who may connect to one, and what must not be in its place.

gRPC makes the file when the address is bound, and takes connections from then on, before the server
starts. The file has the permissions that the process's umask leaves; connecting needs permission to
write. gRPC removes a socket that is in the way, of a dead server or of a live one, and removes the
file when the server stops. Measured with grpcio 1.81 and 1.85.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from typing import TypeVar

from dynserve.errors import AddressError

__all__ = ["bind_with_mode", "parse_mode", "path_of", "why_not_socket"]

_T = TypeVar("_T")

_OCTAL = re.compile(r"(?:0o)?0?([0-7]{3})")
_SCHEME = "unix:"
_MAX = 0o777
_OWNER_ONLY = 0o177  # a umask: none but the owner reads and writes
_WRITE = 0o222
_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
)


def parse_mode(given: int | str) -> int:
    """The permissions of a socket's file, as a number or in octal digits.

    Args:
        given: ``0o660``; from flags and variables ``"660"``, ``"0660"`` or ``"0o660"``.

    Raises:
        ValueError: it is not one, or nobody could connect.
    """
    if isinstance(given, str):
        match = _OCTAL.fullmatch(given)
        mode = int(match[1], 8) if match else -1
        shown, expected = repr(given), "'660'"
    else:
        mode = -1 if isinstance(given, bool) else given
        shown, expected = repr(given), "0o660"
    if not 0 <= mode <= _MAX:
        hint = ""
        if isinstance(given, int) and _OCTAL.fullmatch(shown):
            hint = f"; did you mean 0o{given}?"
        raise ValueError(f"got unix_mode={shown}, expected permissions such as {expected}{hint}")
    if not mode & _WRITE:
        raise ValueError(
            f"got unix_mode={shown}, with which nobody could connect: that needs permission to"
            f" write; expected permissions such as {expected}"
        )
    return mode


def path_of(address: str) -> str | None:
    """The path of ``unix:PATH`` or ``unix:///PATH``, None where the address has no file."""
    if not address.startswith(_SCHEME):
        return None
    return address.removeprefix(_SCHEME).removeprefix("//")


def why_not_socket(path: str) -> str:
    """Why a socket cannot take this path, empty where it can: nothing but a socket makes way."""
    try:
        state = os.stat(path)  # as gRPC does: a link to a socket makes way too
    except OSError:
        return ""
    if stat.S_ISSOCK(state.st_mode):
        return ""
    kind = next((name for test, name in _KINDS if test(state.st_mode)), "something else")
    return f"{kind} is there, expected nothing or the socket of a server that has ended"


def bind_with_mode(address: str, mode: int | None, bind: Callable[[str], _T]) -> _T:
    """Bind an address; the file of a unix socket has these permissions from its first moment on.

    It is made for its owner alone, by the umask, and gets the mode once it is there: nobody can
    connect who may not. The umask is the whole process's: a file that another thread makes in that
    moment, less than a millisecond, is for its owner alone too.

    Args:
        address: as gRPC takes it; for one that is not a unix socket's, ``mode`` means nothing.
        mode: the permissions, such as ``0o660``; None leaves them to the umask.
        bind: binds the address.

    Returns:
        What ``bind`` returns.

    Raises:
        AddressError: something that is not a socket is at the path, or the file that was made is
            not there any more.
    """
    path = path_of(address)
    if path is None:
        return bind(address)
    if problem := why_not_socket(path):
        raise AddressError(address, problem)
    if mode is None:
        return bind(address)
    before = os.umask(_OWNER_ONLY)
    try:
        bound = bind(address)
    finally:
        os.umask(before)
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):  # never of what a link leads to
            os.chmod(path, mode)
            return bound
        problem = "another file took its place"
    except OSError as error:
        problem = str(error.strerror)
    raise AddressError(address, f"cannot give it mode 0o{mode:o}: {problem}")
