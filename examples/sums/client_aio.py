"""Sums, called with asyncio: requests are written one by one, and then the answer awaited."""

import asyncio
import sys

import dynserve


async def main(address: str = "localhost:50051") -> None:
    async with dynserve.aio.connect(address) as client:
        service = await client.service("sum_stream.SumService")
        call = service.CalculateSum()
        for number in (1, 2, 39):
            await call.write({"number": number})
        await call.done_writing()
        print("The sum is", (await call).sum)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
