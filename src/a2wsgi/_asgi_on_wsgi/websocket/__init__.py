"""WebSockets of an ASGI app: the client's socket is taken over from the WSGI server, and driven by our loop.

*Files, in reading order*

===============  ===================================================================================================
`handshake`      which handshakes are let in, and what the others are answered
`session`        one WebSocket, from top to bottom; it rides a `request.Request`
`takeover`       the client's socket, taken over from the server
`carrier`        a server thread that is held for it, where the server does TLS
`server_stop`    whether the server has begun to stop, for such a thread, and whether it has another one
`endpoint`       the connection on the loop: frames, backpressure, the close handshake
`phase`          how far that is
`message_queue`  messages that wait for the app
`keepalive`      pings for a client that is silent
`our_sockets`    the descriptors that are ours, also in forked children
`messages`       the scope and messages of the app, and the errors for wrong ones
===============  ===================================================================================================

*Glossary*

- **Sink**: what a server has in place of a client's socket that was taken over; its other end is the *drain*.
- **Held**: of a server thread that carries a WebSocket's bytes until it is over.

The rest is in the glossary of the wing.
"""
