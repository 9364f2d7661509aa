"""The queue engine: a server on grpcio's completion queue, in plain Python.

What a call costs in Python is passing it between threads. Here one thread, the *leader*, takes
events off the queue and does all the bookkeeping; a handler costs one hand-off at most.

The protocol: who may touch what, on which thread
-------------------------------------------------
The *leader* is the one thread that polls. It alone runs completion callbacks (``_on_…``), looks up
handlers, counts calls, and fills the lists of what is to be woken. The lead passes to another
thread only while a handler runs on the leader (``Poller._run_quick``), or between two bursts: to
the loop and back (``Poller._lend``, ``Poller._take_back``); never inside a callback.

The *handler's side* of a call is the worker thread that runs a sync handler, or the loop. It alone
takes requests, produces responses, and sets the code, the details and the metadata.

Between the two there are

* deques: ``append`` and ``popleft`` are atomic, one side does one, the other the other (the end of
  requests, which stays, may be put there by both);
* counters, each written by one side and read by both (``_in_put`` by the leader, ``_in_got`` by the
  handler's side, …); their difference may be old, but every side asks again after it changed its
  own;
* tokens: a list with one item, which is a right. Of several threads that take it one gets it
  (``won``): the right to start the next receive (``_paused``), to send the next message
  (``_idle``), to ask the core for the end of the call (``_unwatched``), to lead on while a handler
  runs on the leader (``Poller._lead``);
* flags that go from False to True once and are written by one side (``_is_cancelled``,
  ``_is_closed`` by the leader, ``_is_finished`` by who sends the status,
  ``Poller.is_cancelling`` by who ends the server, before it asks which calls there are);
* which call the loop may lead with (``Poller._recent``): noted by the leader, dropped by the loop
  when the server stops; one that the leader notes after that goes with the end of its call;
* sleep: whoever finds nothing announces that it will sleep and then looks again (``Gate``, and the
  events of an async call), so no wake-up is missed; a wake-up may be an old one, so whoever wakes
  looks again too.

Nothing here relies on the global interpreter lock: single operations on lists, deques and sets are
atomic on free-threaded builds too, and a check followed by an act goes through a token. The one
lock (``QueueEngine._state``) orders calls into the core against its shutdown and destruction, which
the core does not do itself.

A call is over when the core says so (``Call._on_close``). From then on the core's call is let go
of, since a server of the core does not shut down while one is held; who still waits for requests or
for room is woken.

A server stops when ``Poller.open``, the calls whose end the core has not told, is zero.
``Poller.serving``, the calls whose handlers have not ended, is what the limit is for; a
handler that blocks for good does not keep the server. Each call leaves both, whatever happens.
"""

from .engine import QueueEngine

__all__ = ["QueueEngine"]
