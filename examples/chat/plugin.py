"""Chat: an async generator reads requests and yields responses in any order it likes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from dynserve import App

app = App(Path(__file__).parents[2] / "protos" / "chat.proto")


@app.stream_stream("chat.ChatService/Chat")
async def chat(requests: AsyncIterator[Any]) -> AsyncIterator[dict[str, str]]:
    """Answer each message as soon as it arrives."""
    async for request in requests:
        yield {"message": f"You said: {request.message}"}
