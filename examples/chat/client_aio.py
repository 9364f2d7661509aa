"""Chat, called with asyncio: write, read, write, read; no thread, no queue."""

import asyncio
import sys

import dynserve


async def main(address: str = "localhost:50051") -> None:
    async with dynserve.aio.connect(address) as client:
        service = await client.service("chat.ChatService")
        call = service.Chat()
        for text in ("hello", "what do you say?", "goodbye"):
            await call.write({"message": text})
            print((await call.read()).message)
        await call.done_writing()
        print("The end:", (await call.code()).name)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (dynserve.DynserveError, dynserve.StatusError) as error:
        sys.exit(str(error))
