"""Sums: a handler of a streaming request gets an iterator."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grpc import StatusCode

from dynserve import App, StatusError

INT32 = range(-(2**31), 2**31)

app = App(Path(__file__).parents[2] / "protos" / "sums.proto")


@app.stream_unary("sum_stream.SumService/CalculateSum")
def calculate_sum(requests: Iterator[Any]) -> dict[str, int]:
    """Add up all numbers; only the total has to fit in an int32, not the sums on the way."""
    total = sum(request.number for request in requests)
    if total not in INT32:
        raise StatusError(StatusCode.OUT_OF_RANGE, f"the sum {total} does not fit in an int32")
    return {"sum": total}
