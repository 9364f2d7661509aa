"""Numbers: a handler that is a generator streams its responses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dynserve import App

app = App(Path(__file__).parents[2] / "protos" / "numbers.proto")


@app.unary_stream("number_stream.NumberService/GetNumbers")
def get_numbers(request: Any) -> Iterator[dict[str, int]]:
    """Count from 0 to the limit less one; not at all if the limit is negative."""
    for number in range(request.limit):
        yield {"number": number}
