"""The metrics of all workers, at one address."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator

__all__ = ["metrics_served"]

_log = logging.getLogger("dynserve.workers")

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # of prometheus_client, which reads it when it is imported


@contextlib.contextmanager
def metrics_served(address: str | None) -> Iterator[Callable[[int], object]]:
    """Serve what processes count that are started in the block.

    Gives what is to be called with the id of each that has ended, which raises nothing: no metrics
    are worth the end of a supervisor.

    Raises:
        AddressError: the address cannot be listened on.
        DynserveError: prometheus-client is not installed.
    """
    if address is None:
        yield lambda _pid: None
        return
    from dynserve.observe.metrics_server import MetricsServer  # an extra

    with (
        # A worker that was not waited for may still write there.
        tempfile.TemporaryDirectory(
            prefix="dynserve-metrics-", ignore_cleanup_errors=True
        ) as folder,
        MetricsServer(address, folder=folder) as server,
    ):
        _log.info("metrics of all workers on http://%s/metrics", server.address)

        def process_ended(pid: int) -> None:
            try:
                server.process_ended(pid)
            except Exception:
                _log.exception("the metrics of process %d cannot be kept", pid)

        before = os.environ.get(_FOLDER)
        os.environ[_FOLDER] = folder
        try:
            yield process_ended
        finally:
            if before is None:
                del os.environ[_FOLDER]
            else:
                os.environ[_FOLDER] = before
