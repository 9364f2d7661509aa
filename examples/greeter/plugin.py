"""Greeter: a handler is a function from a request to a response."""

from pathlib import Path
from typing import Any

from dynserve import App

app = App(Path(__file__).parents[2] / "protos" / "greeter.proto")


@app.rpc("helloworld.Greeter/SayHello")
def say_hello(request: Any) -> dict[str, str]:
    """Greet someone for the first time."""
    return {"message": f"Hello, {request.name}!"}


@app.rpc("helloworld.Greeter/SayHelloAgain")
def say_hello_again(request: Any) -> dict[str, str]:
    """Greet someone who has been here before."""
    return {"message": f"Hello again, {request.name}!"}
