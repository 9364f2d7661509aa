"""``dynserve.aio``: the client of the event loop.

::

    async with dynserve.aio.connect("localhost:50051") as client:
        greeter = await client.service("helloworld.Greeter")
        reply = await greeter.SayHello(name="you")
"""

from dynserve.client.aio import AsyncClient as Client
from dynserve.client.aio_call import AsyncCall, AsyncMethod

__all__ = ["AsyncCall", "AsyncMethod", "Client", "connect"]

connect = Client
