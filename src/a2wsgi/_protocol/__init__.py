"""What the protocols say, as pure functions and tables: no threads, no I/O, no clock.

Each file opens with its facts and the specifications they are from. In reading order:

=======================  =============================================================================================
`names`                  header names: what may be one, how each interface spells it, and which belong to the server
`status`                 status codes and status lines
`framing`                how long a body is, and what of it is sent
`files`                  which file a server can send by itself
`headers`                the head of a response, in each direction
`hints`                  early hints, in each direction
`iterables`              what a WSGI server gets of a complete response
`paths`                  paths and addresses, as each interface has them
`tls`                    what servers tell of TLS, in each direction
`cipher_suites`          the names and numbers of its cipher suites
`distinguished_names`    the name in a certificate
`environ`                the environ of a scope
`scope`                  the scope of an environ
`upgrade`                the handshake of a WebSocket, and the answer to it
`answer`                 the answer that a WSGI app writes on a socket of its own
`frames`                 the frames of a WebSocket
`deflate`                compression of its messages
`close_codes`            close codes, and how a WebSocket may end
`codec`                  everything that is used of `websockets`, the only file that imports it
=======================  =============================================================================================
"""
