"""Equipment: what settings ask for beside a server's own parts, and that runs while it runs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from dynserve.engines import engine_maker
from dynserve.errors import SettingError

if TYPE_CHECKING:
    from dynserve.method import MethodInfo
    from dynserve.observe import Metrics, MetricsServer
    from dynserve.observer import Observer
    from dynserve.settings import Settings

__all__ = ["Equipment", "access_log_shown", "check_xds"]

_grpcs_log = logging.getLogger("grpc._cython.cygrpc")

_PACKAGE, _ACCESS = "dynserve", "dynserve.access"
_BOOTSTRAP = ("GRPC_XDS_BOOTSTRAP", "GRPC_XDS_BOOTSTRAP_CONFIG")

Credentials = Callable[[], "grpc.ServerCredentials | None"]


class Equipment:
    """What a server has by its settings.

    ``observers`` see every call: traces outermost, so that lines of the log know their trace.
    ``credentials`` makes those of a port; each needs its own.

    Args:
        settings: what is asked for.
        credentials: for the ports, in place of what the settings say.
        listen: the addresses, for what tells of them.
        is_worker: whether it is one process of several; then a supervisor serves the metrics.

    Raises:
        CredentialsError: a file of a setting cannot be used.
        SettingError: settings and ``credentials`` both say how ports are secured.
        DynserveError: an extra is not installed; it says which.
        AddressError: the address for metrics is none.
    """

    def __init__(
        self,
        settings: Settings,
        credentials: grpc.ServerCredentials | None,
        listen: Iterable[str],
        is_worker: bool = False,
    ) -> None:
        self.credentials = _credentials_of(settings, credentials)
        self.observers: list[Observer] = []
        self._metrics: Metrics | None = None
        self._metrics_at: str | None = None
        self._endpoint: MetricsServer | None = None
        if settings.traces:
            from dynserve.observe import Traces

            self.observers.append(Traces(address=next(iter(listen), "")))
        if settings.metrics is not None:
            from dynserve.observe import Metrics, MetricsServer

            self._metrics = Metrics()
            if not is_worker:
                MetricsServer(settings.metrics)  # which checks the address
                self._metrics_at = settings.metrics
            self.observers.append(self._metrics)
        if settings.access_log != "off":
            from dynserve.observe import AccessLog

            self.observers.append(AccessLog(settings.access_log, settings.access_log_sample))

    @property
    def metrics_address(self) -> str:
        """Where metrics are served, with the port that the system chose; empty where none are."""
        return self._endpoint.address if self._endpoint is not None else ""

    def start(self, methods: Callable[[], Iterable[MethodInfo]]) -> None:
        """Start what runs; ``methods`` gives those that have a handler.

        Raises:
            AddressError: the address for metrics cannot be had.
        """
        _grpcs_log.addFilter(self._tells_no_secret)
        if self._metrics is not None:
            self._metrics.prepare(methods())
            if self._metrics_at is not None:
                from dynserve.observe import MetricsServer

                endpoint = MetricsServer(self._metrics_at, self._metrics.registry)
                endpoint.start()
                self._endpoint = endpoint

    def stop(self) -> None:
        """End what runs; a second time it does nothing."""
        _grpcs_log.removeFilter(self._tells_no_secret)
        if self._endpoint is not None:
            self._endpoint.close()

    def _tells_no_secret(self, record: logging.LogRecord) -> bool:
        """Whether this is not about metadata that is not UTF-8, which gRPC logs with its value.

        That may be an Authorization header.
        https://github.com/grpc/grpc/blob/master/src/python/grpcio/grpc/_cython/_cygrpc/metadata.pyx.pxi
        """
        return not str(record.msg).startswith("Invalid encoding on")


def _credentials_of(settings: Settings, given: grpc.ServerCredentials | None) -> Credentials:
    names = ("tls_cert", "tls_key", "tls_client_ca", "tls_require_client_cert")
    said = {name: getattr(settings, name) for name in names}
    name = next((name for name, value in said.items() if value is not None), "")
    if given is not None and name:
        raise SettingError(name, said[name], "nothing, where credentials are given")
    if not name:
        made: Credentials = lambda: given  # noqa: E731 - or what follows
    else:
        from dynserve.server_tls import server_tls_from

        tls = server_tls_from(**said)
        made = tls.credentials if tls is not None else lambda: None
    if not settings.xds:
        return made
    return lambda: grpc.xds_server_credentials(made() or grpc.insecure_server_credentials())


def check_xds(listen: Iterable[str], settings: Settings) -> None:
    """Whether a control plane can manage a server; gRPC itself would go on without.

    https://github.com/grpc/proposal/blob/master/A36-xds-for-servers.md

    Raises:
        SettingError: it cannot.
    """
    problem = ""
    if not any(map(os.environ.get, _BOOTSTRAP)):
        problem = f"{' or '.join(_BOOTSTRAP)} in the environment"
    elif engine_maker(settings.engine).__name__ != "QueueEngine":  # "auto" may be aio, too
        problem = "the engine 'queue': grpc.aio has no xDS"
    elif any(one.startswith("unix") or one.endswith(":0") for one in listen):
        problem = "addresses HOST:PORT with a port, which the control plane knows"
    if problem:
        raise SettingError("xds", True, problem)


@contextmanager
def access_log_shown(settings: Settings) -> Iterator[None]:
    """Write the access log to standard error, where nobody has said where it goes.

    By a thread of its own: a terminal, or a reader of a pipe, that takes nothing must not stop the
    server.
    """
    logger = logging.getLogger(_ACCESS)
    configured = logger.handlers or logging.getLogger(_PACKAGE).handlers
    if settings.access_log == "off" or configured:
        yield
        return
    from dynserve.observe import BatchedHandler, JSONFormatter

    handler = BatchedHandler(sys.stderr)
    if settings.access_log == "json":
        handler.setFormatter(JSONFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
        handler.close()
