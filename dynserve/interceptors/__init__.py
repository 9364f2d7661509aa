"""``grpc.ServerInterceptor`` and ``grpc.aio.ServerInterceptor`` objects, around handlers.

``chain`` has what runs them, ``crossing`` what leads from a thread to the loop and back where an
interceptor is of one world and what is inside of it of the other, ``views`` the contexts there.
"""

from .chain import checked_interceptor, intercepted, is_interceptor
from .threads import Threads

__all__ = ["Threads", "checked_interceptor", "intercepted", "is_interceptor"]
