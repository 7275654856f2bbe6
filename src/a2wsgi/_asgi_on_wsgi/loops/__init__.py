"""The event loops on which ASGI apps run. A *loop* is an event loop; a *host* has one, and knows who runs it.

=============  =====================================================================================================
`host`         where a loop runs: what all kinds have in common, and a given loop
`shared_loop`  the thread that all bridges share, for asyncio and for trio
`inline_loop`  a loop that the server thread runs while it waits
`fast_loop`    our own event loop, which a server thread wakes without a system call if it can
`greenlets`    what gevent and eventlet change
`trio_host`    the shared thread that runs trio, and what an app sees of it
`trio_loop`    a run of trio's with the methods of an event loop, so that all of the above is the same
=============  =====================================================================================================
"""
