"""What tests of an app need: the app served with a client for it, and contexts to call handlers by.

::

    from dynserve.testing import serve
    from plugin import app


    def test_greeting() -> None:
        with serve(app) as client:
            assert (
                client.service("helloworld.Greeter").SayHello(name="you").message == "Hello, you!"
            )

``async with serve(app) as client`` is the same with the client of :mod:`dynserve.aio`.
"""

from .contexts import FakeAsyncContext, FakeContext
from .serving import Serving, serve

__all__ = ["FakeAsyncContext", "FakeContext", "Serving", "serve"]
