"""buf/validate/validate.proto, which no Python package installs, from protovalidate's descriptors.

What is served with rules imports it. The package that enforces them knows the file it was made from
only as descriptors, so its text is printed from those: the rules that a .proto may use are those
that are enforced, whichever version is installed.
"""

from __future__ import annotations

import importlib.util

from dynserve.errors import SourceError

from .sources import tidy

__all__ = ["NAME", "rules_path", "rules_text"]

NAME = "buf/validate/validate.proto"


def rules_path() -> str | None:
    """The file that stands for it: it changes with protovalidate. None where that is not there."""
    package = importlib.util.find_spec("protovalidate")
    if package is None or package.origin is None:
        return None
    return tidy(package.origin)


def rules_text() -> bytes:
    """The text of the file, without comments.

    Raises:
        SourceError: the protovalidate that is installed has no descriptors of its own.
    """
    try:
        from protovalidate import ViolationsPb
    except ImportError as error:
        problem = (
            "the protovalidate that is installed is older than 2.0, or broken;"
            " write `pip install 'dynserve[validate]'`"
        )
        raise SourceError(NAME, problem) from error
    from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2

    from .proto_text import file_text
    from .schema import Schema

    files = descriptor_pb2.FileDescriptorSet()
    files.file.add().ParseFromString(ViolationsPb.desc().file.proto.to_binary())
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    return file_text(Schema.load(files), NAME).encode()
