"""WebSockets of a WSGI app. Each has a `session.WebSocketSession` on the loop and an `app.AppRun` on a thread.

Threads
    ::

        loop thread      WebSocketSession.answer: makes a socket pair → submits → carries what the app sends
                         its second task: carries what the server receives
        worker thread    AppRun.run, on a pool of its own: the app, with its end of the socket pair

Reading order
    ==============  ===================================================================================================
    ``session``     the story of one WebSocket, from top to bottom
    ``app``         the app of it, on its worker thread
    ``pool``        the threads of WebSockets, and how many may come in
    ``link``        the loop's end of its socket pair, and what happens to it when the process ends
    ``passages``    how messages pass between the two: as frames on the link, or as they are
    ``app_socket``  the app's end, as an object of ours and as gevent-websocket's
    ``denial``      a mixin of `WebSocketSession`: how a handshake is refused
    ``failures``    another: which errors are a regular end of it, and what the server hears of the others
    ``messages``    the server's messages: what they carry, and what is wrong with them
    ==============  ===================================================================================================

Glossary
    *link*: the two connected sockets between the loop and the app. The rest is in the glossary of the wing.
"""
