"""Several worker processes that share their ports, and the supervisor that keeps them.

Two sides, of which a process is one. The supervisor (``entry``, ``supervisor``, ``loop``,
``process``, ``ports``, ``backoff``, ``board``) never imports grpc, and starts each worker as a
fresh process, so that nothing of grpc is ever forked. The worker has a :class:`~.link.Link`. What
they say to each other is in ``channel``.
"""
