"""Greeter, called with asyncio: a call begins at once, and is awaited when its answer is needed."""

import asyncio
import sys

import dynserve


async def main(address: str = "localhost:50051") -> None:
    async with dynserve.aio.connect(address) as client:
        greeter = await client.service("helloworld.Greeter")
        replies = await asyncio.gather(*(greeter.SayHello(name=name) for name in ("Ada", "Grace")))
        for reply in replies:
            print(reply.message)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
