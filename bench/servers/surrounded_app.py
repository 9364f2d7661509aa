"""dynserve_app.py with one thing around its handlers: surrounded_app.py PORT WORLD ENGINE AROUND

WORLD is sync or async, of the handlers. AROUND is a key of AROUNDS. Middleware and interceptors do
nothing here, so that what is measured is what dynserve does to run them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import grpc

from dynserve import App
from dynserve_app import KINDS, LIMITS, PROTO

TOKEN = "a-token-that-is-long-enough"
KEY = "a-secret-that-is-long-enough-for-HS256"
AUDIENCE, ISSUER = "bench", "https://issuer.example/"
Settings = Mapping[str, Any]


def sync_middleware(context: Any) -> Iterator[None]:
    """Sync, around a handler of either world."""
    yield


async def async_middleware(context: Any) -> AsyncIterator[None]:
    """Async, around a handler of either world."""
    yield


class Interceptor(grpc.ServerInterceptor):
    """One of grpcio's that does nothing."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """What would have served the call."""
        return continuation(handler_call_details)


def middleware(function: Any, count: int) -> Callable[[App], Settings]:
    """The same several times."""

    def around(app: App) -> Settings:
        app.add_middleware(*[function] * count)
        return {}

    return around


def settings(**given: Any) -> Callable[[App], Settings]:
    """Settings alone."""
    return lambda app: given


def bearer(app: App) -> Settings:
    """Static tokens."""
    from dynserve.auth import BearerTokens

    app.auth(BearerTokens({TOKEN: "bench"}))
    return {}


def json_web_token(app: App) -> Settings:
    """One token again and again: its signature is verified once."""
    from dynserve.auth import JWT

    app.auth(JWT(key=KEY, audience=AUDIENCE, issuer=ISSUER))
    return {}


def made_token() -> str:
    """A token that json_web_token() accepts for an hour."""
    import jwt

    claims = {"sub": "bench", "aud": AUDIENCE, "iss": ISSUER, "exp": int(time.time()) + 3600}
    return jwt.encode(claims, KEY, "HS256")


def access_log(format: str, sample: float = 1.0) -> Callable[[App], Settings]:
    """Written as `dynserve run` does, to nowhere."""

    def around(app: App) -> Settings:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        return {"access_log": format, "access_log_sample": sample}

    return around


def traces(share: float) -> Callable[[App], Settings]:
    """OpenTelemetry's SDK takes a share of the traces, and the exporter drops them."""

    def around(app: App) -> Settings:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import (
            BatchSpanProcessor,
            SpanExporter,
            SpanExportResult,
        )
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        class Nowhere(SpanExporter):
            def export(self, spans: Any) -> SpanExportResult:
                return SpanExportResult.SUCCESS

        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)))
        provider.add_span_processor(BatchSpanProcessor(Nowhere()))
        trace.set_tracer_provider(provider)
        return {"traces": True}

    return around


_limits = {"default_timeout": 30.0, "max_timeout": 60.0, "maximum_concurrent_rpcs": 10_000}


def production(app: App) -> Settings:
    """What a service that is exposed may have, at once."""
    parts = (
        bearer,
        middleware(sync_middleware, 3),
        access_log("json"),
        traces(0.1),
        settings(metrics="127.0.0.1:0", **_limits),
    )
    return {name: value for part in parts for name, value in part(app).items()}


AROUNDS: dict[str, Callable[[App], Settings]] = {
    "nothing": settings(),
    "1 sync": middleware(sync_middleware, 1),
    "3 sync": middleware(sync_middleware, 3),
    "1 async": middleware(async_middleware, 1),
    "3 async": middleware(async_middleware, 3),
    "interceptor": middleware(Interceptor(), 1),
    "bearer": bearer,
    "jwt": json_web_token,
    "text log": access_log("text"),
    "json log": access_log("json"),
    "sampled log": access_log("json", 0.01),
    "traces": settings(traces=True),
    "10 % of traces": traces(0.1),
    "all traces": traces(1.0),
    "metrics": settings(metrics="127.0.0.1:0"),
    "limits": settings(**_limits),
    "production": production,
}


def serve(port: str, world: str, engine: str, around: str) -> None:
    """Serves until the process is ended."""
    app = App(PROTO)
    reply, item = app.schema.message("bench.SayReply"), app.schema.message("bench.Item")
    app.add_servicer(KINDS[world](reply, item), "bench.Echo")
    given = AROUNDS[around](app)
    app.run(f"127.0.0.1:{port}", engine=engine, **LIMITS, **given)  # type: ignore[arg-type]  # as in dynserve_app.py


if __name__ == "__main__":
    serve(*sys.argv[1:])
