"""An ASGI app on a WSGI server. Start here.

*Threads*

- **Server thread**: a thread of the WSGI server. It calls the bridge, reads the request's body, calls
  ``start_response()`` and gives the response to the server. Each request has one, and it waits in one place.
- **Loop thread**: runs the event loop, and on it the app's task for each request. All bridges of a process share one,
  ``a2wsgi-loop``, unless the user gives a loop; those with ``backend="trio"`` share another, ``a2wsgi-trio``.
- With ``inline=True``, the server thread runs the loop while it waits. Then both are one thread, and everything below
  still holds.

The two meet in `to_server` (loop thread to server thread) and at the loop's *doorbell* (server thread to loop thread).

*Files, in reading order*

==================  ================================================================================================
`settings`          the options of a bridge
`bridge`            one bridge: its options, what its requests share, its statistics, and what 1.x asks it for
`request`           one request, from top to bottom
`outcome`           what a request can come to: three small machines, and the table of endings
`sender`            a mixin of `Request`: what the app sends, checked, framed and queued
`endings`           a mixin of `Request`: its client leaves, its time is over, or its bridge is closed
`inbox`             what the app receives
`body`              the request's body, as the WSGI server has it
`server_socket`     the socket behind a request: has the client hung up, how long may a read take
`response`          what the server gets: an iterable, the whole in a list, or a file
`files`             a file that the app sends by its path
`to_server`         the stream from the loop to the server thread
`faults`            the error messages for what an app does wrong
`overdue`           what the log says of an app that has exceeded ``app_timeout``
`lifetime`          start and stop of one bridge: its loop and the app's lifespan
`changes`           a start or a stop that is under way, and who waits for it
`exit_and_fork`     the end of the process, and forks of it
`lifespan`          the app's ``lifespan`` events
`loops`             a subpackage: where a loop runs, and our own kinds of loop
`websocket`         a subpackage: WebSockets
==================  ================================================================================================

*Glossary*

- **Step**: what the loop runs between two looks for events. What an app sends in one step is handed over at its end.
- **Gate**: a lock that a waiting server thread leaves for the loop to open.
- **Waiter**: a future that a waiting task leaves for somebody to complete.
- **Doorbell**: wakes the loop once for all that server threads ask of it until it answers.
- **Head**: the status and headers of a response.
- **Bodiless**: of a response that has no body whatever the app sends: to HEAD, or with status 204 or 304.
- **Complete**: of a response whose last message the app has sent. The app may still run: *background* work.
- **Lost**: of a client that takes no more of a response. Its request is over, its app gets ``http.disconnect``.
- **Grace**: the time that an app has from then on before it is cancelled.
- **Detached**: of a response that the server has left while its app still runs; its failure is logged, not raised.
- **Pair**: two bridges of one request, and what the inner one tells the outer (see `a2wsgi._nested`).
"""
