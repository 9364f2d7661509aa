"""What is wrong with what a configuration was asked to say."""

from __future__ import annotations

from dynserve.errors import DynserveError

__all__ = ["ProxyError"]


class ProxyError(DynserveError):
    """A setting of the proxy is none, or does not go with another; ``setting`` is its option."""

    exit_code = 2

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(setting, problem)
        self.setting = setting
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.setting}: {self.problem}"
