"""A WSGI app on an ASGI server: the wing of `WSGIMiddleware`.

Threads
    ::

        loop thread      Request.answer: reads the body ahead → submits → sends what the app writes → one ending
                         the receiver's task: the rest of the body, then the disconnect
                         the timer: visits each request in flight ten times a second
        worker thread    Request.run: the app → its iterable → close()

    The two meet in four places, and nowhere else: `ToThread` carries the body down, `ToLoop` the response up,
    `Workers` the request down, and `Disconnected` tells the app that its client has left.

Reading order
    =================  ================================================================================================
    ``request``        the story of one request, from top to bottom
    ``failures``       a mixin of `Request`: what its app and its server raised, and who is told of it
    ``overdue``        a mixin of `Request`: ``app_timeout``, for an app that is late with its response
    ``endings``        the base of `Request`: how it can end, and how each of its waits can be ended
    ``response``       what the app says, and how it is sent
    ``sending``        several messages in a row
    ``files``          ``wsgi.file_wrapper``, and which files the server sends by itself
    ``receiver``       the one caller of ``receive()``; its states are in ``receiving``, what it gets in ``messages``
    ``spool``          a body that is kept in a file before the app starts
    ``input``          ``wsgi.input``
    ``disconnected``   ``environ["a2wsgi.disconnected"]``, and which request a thread works for
    ``in_loop``        `run_in_loop` and `async_to_sync`: async code on the server's loop
    ``refusals``       400, 408, 413 and 503, in the app's place
    ``faults``         the error messages for what an app does wrong
    ``streams``        the two bounded streams between a thread and a loop
    ``jobs``           what a worker thread is given to do
    ``workers``        the worker threads
    ``loops``          the loops that a bridge is called on, with their timers
    ``processes``      whether the server has several processes
    ``lifespan``       startup and shutdown
    ``bridge``         the public class, its statistics, and what its requests share
    ``settings``       the options
    ``deprecated``     what is left of a2wsgi 1.x
    ``websocket``      WebSockets: a subpackage, with a map like this one
    =================  ================================================================================================

Glossary
    *bridge*: one `WSGIMiddleware`, with its app. *Further in* is nearer to the app, *further out* nearer to the server.

    *job*: a request, as the workers see it.

    *call up*: to have one more worker come to the queue.

    *to read ahead*: to receive a request's body before a worker is taken.

    *to abort*: to end a request early, or one of its streams. *To finish*: to say that nothing more will be written.
    *Done*: the worker thread touches nothing of the request any more.

    *gate*: a lock at which a thread waits until another one opens it. *Waiter*: a future, in which a coroutine waits.

    *doorbell*: lets any thread have the loop call a function.

    *pair*: two bridges of one request, and what the inner one has to tell the outer (``a2wsgi._nested``).

    *To abandon* a worker thread: to wait for it no more, though it may still run its app.

    *overdue*: of an app, or its worker, that has exceeded ``app_timeout``. *To write off*: to count it no more.

    *to fix the head*: from then on ``start_response()`` cannot replace it.
"""
