"""Numbers, called with asyncio: several streams at the same time, on one thread."""

import asyncio
import sys
from typing import Any

import dynserve


async def count(service: Any, limit: int) -> list[int]:
    return [response.number async for response in service.GetNumbers(limit=limit)]


async def main(address: str = "localhost:50051") -> None:
    async with dynserve.aio.connect(address) as client:
        service = await client.service("number_stream.NumberService")
        for numbers in await asyncio.gather(count(service, 3), count(service, 5)):
            print(*numbers)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
