"""What goes wrong with an ASGI app, its bridge or its loop, in words: what happened, why, and how to fix it.

*Facts*: ASGI 3.0, "Error Handling": "If the server receives an invalid event dictionary […] it should raise an
exception out of the send awaitable back to the application". ASGI HTTP 2.5, "Response Start", "Response Body". RFC 9112
§8.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import cast

from a2wsgi._errors import (
    AppError,
    AppProtocolError,
    BridgeClosed,
    BridgeError,
    ClientDisconnected,
    MissingCapability,
)


def no_response() -> AppProtocolError:
    """The app returned and has sent nothing."""
    return AppProtocolError(
        "The ASGI app returned without a response. ASGI HTTP 2.5 requires http.response.start and http.response.body. "
        "Send both before the app returns."
    )


def unfinished() -> AppProtocolError:
    """The app returned in the middle of its response."""
    return AppProtocolError(
        'The ASGI app returned before the end of its response. ASGI HTTP 2.5, "Response Body": in the last message '
        "more_body is False. Send one, with an empty body if there is nothing left to send."
    )


def body_broke_off() -> ClientDisconnected:
    """The app returned in the middle of its response, because the body of its request ended early."""
    return ClientDisconnected("the request's body ended early")


def body_before_head(kind: str = "http.response.body") -> AppProtocolError:
    """The app sent a part of the body before the head."""
    return AppProtocolError(
        f"The ASGI app sent {kind} before http.response.start. ASGI HTTP 2.5 requires the status and "
        "the headers first. Send http.response.start once, before the body."
    )


def second_head() -> AppProtocolError:
    """The app sent a second head."""
    return AppProtocolError(
        "The ASGI app sent http.response.start a second time. A response has only one status (ASGI HTTP 2.5, "
        '"Response Start"). Send it once.'
    )


def late_hint() -> AppProtocolError:
    """The app sent an early hint after its head."""
    return AppProtocolError(
        "The ASGI app sent http.response.early_hint after http.response.start. A hint must precede the response (RFC "
        "8297 §2). Send hints first."
    )


def no_status() -> AppProtocolError:
    """The head has no status."""
    return AppProtocolError(
        'The ASGI app sent http.response.start without a status. ASGI HTTP 2.5, "Response Start", requires one. '
        'Add it, as in {"type": "http.response.start", "status": 200}.'
    )


def too_short(missing: int) -> AppProtocolError:
    """The body ended ``missing`` bytes before its Content-Length."""
    return AppProtocolError(
        f"The ASGI app's body ended {missing} bytes before its Content-Length. The client would treat the "
        "response as incomplete (RFC 9112 §8). Set the correct length, or leave it out."
    )


def _no_path(path: object) -> AppProtocolError:
    """The app sent a file without a path, or with one of a wrong type."""
    return AppProtocolError(
        f'The ASGI app sent http.response.pathsend with a path of type {type(path).__name__}. ASGI, "Path Send", '
        "requires an absolute path as a str. Send str(path)."
    )


def as_path(path: object) -> str:
    """A path as a str. ASGI wants one, but some apps send a ``pathlib.Path`` (freezeyt).

    Raises:
        AppProtocolError: It is none.
    """
    try:
        name = os.fspath(cast("os.PathLike[str]", path))
    except Exception as error:  # it has none, or its own code raised
        raise _no_path(path) from error
    if not isinstance(cast("object", name), str):
        raise _no_path(path)
    return name


def no_file(path: str) -> AppProtocolError:
    """What the app sent by its path is no regular file."""
    return AppProtocolError(
        f"The ASGI app sent http.response.pathsend with the path {path!r}, which is not a regular file. Read it, and "
        "send its content in http.response.body."
    )


def file_too_short(path: str, missing: int) -> AppProtocolError:
    """The file that the app sent is ``missing`` bytes shorter than its Content-Length."""
    return AppProtocolError(
        f"The file {path!r}, which the ASGI app sent, is {missing} bytes shorter than its Content-Length. The "
        "client would treat the response as incomplete (RFC 9112 §8). Look up the length when you send the file."
    )


def file_shrank() -> AppProtocolError:
    """The file has become shorter while the server sent it."""
    return AppProtocolError(
        "A file became shorter while it was being sent, so the response was cut off, and the client has to see that "
        "(RFC 9112 §8). Replace files that are being served (os.replace) instead of writing into them."
    )


def file_and_more() -> AppProtocolError:
    """The app sent a file together with something else."""
    return AppProtocolError(
        'The ASGI app sent http.response.pathsend and another body, or trailers. ASGI, "Path Send": it "cannot be '
        'mixed with http.response.body". Send the file alone.'
    )


def type_of_message(kind: object) -> str:
    """The ``type`` of a message, as an error shows it: never by the ``repr`` of an app's object, which may raise."""
    return repr(kind[:80]) if type(kind) is str else f"(a {type(kind).__name__}, not a str)"


def unknown(kind: object) -> AppProtocolError:
    """The app sent a message of an unknown type."""
    return AppProtocolError(
        f"The ASGI app sent a message of the type {type_of_message(kind)}. ASGI HTTP 2.5 allows http.response.start, "
        'http.response.body, and those of the extensions in scope["extensions"]. Send only these.'
    )


def as_bytes(body: object) -> bytes:
    """A body that is not exactly ``bytes``, converted to it.

    Raises:
        AppProtocolError: It is of another type altogether.
    """
    if isinstance(body, bytes | bytearray):
        return bytes(body)  # WSGI servers take nothing else; and the app may reuse its buffer
    if isinstance(body, memoryview):
        return body.tobytes()
    raise AppProtocolError(
        f"The ASGI app sent a body of type {type(body).__name__}. ASGI HTTP 2.5 requires bytes. Encode text."
    )


# -- Bridges and loops that have ended --------------------------------------------------------------------------------


def closed_error() -> BridgeClosed:
    """What a call of a closed bridge raises, and what ends the requests on one that is closed."""
    return BridgeClosed(
        "The bridge was closed: close() was called, its with block ended, or the process is exiting. A closed bridge "
        "serves no requests. Close it after the last request, or create another one."
    )


def own_thread() -> BridgeError:
    """The bridge was called by its own loop's thread."""
    return BridgeError(
        "The bridge was called synchronously on the thread of its own event loop, which would wait for itself "
        "forever. Call it in another thread (asyncio.to_thread), or await the ASGI app itself."
    )


def loop_stands_still(loop: asyncio.AbstractEventLoop) -> BridgeError:
    """The user does not run the given loop."""
    return BridgeError(
        f"The event loop passed as loop= is not running; it is of type {type(loop).__name__}. The request would never "
        "be answered. Run the loop in a thread of this process (threads do not survive a fork) for as long as requests "
        "come, or leave out loop=."
    )  # not its repr(), which is somebody else's code and may raise


def loop_held_up() -> BridgeError:
    """The loop neither starts an app up nor shuts it down, since somebody else's code keeps its thread."""
    return BridgeError(
        "The app did not start up or shut down in time: blocking code holds up the thread of its event loop, and "
        "everything that runs there. Run such code in another thread (asyncio.to_thread)."
    )


def loop_stopped() -> BridgeError:
    """What a request gets whose loop was stopped."""
    return BridgeError(
        "The event loop was stopped while it handled the request: the app called loop.stop(), or the process is "
        "exiting or was forked during the request. The request gets no answer. The next request starts another loop."
    )


def trio_ended() -> BridgeError:
    """What a request gets when the run of trio that it is on was cancelled."""
    return BridgeError(
        "The trio run was cancelled while it handled the request: a system task of the app failed, the app cancelled "
        "all system tasks, or the process is exiting. The request gets no answer. The next request starts another run."
    )


def no_trio(error: ImportError) -> MissingCapability:
    """``backend="trio"`` without trio."""
    return MissingCapability(
        f'ASGIMiddleware(backend="trio") runs the app on trio, which cannot be imported: {error}. Install it with: '
        "pip install trio"
    )


def no_trio_among_greenlets() -> MissingCapability:
    """Threads are greenlets, among which trio does not run."""
    return MissingCapability(
        'ASGIMiddleware(backend="trio") does not work under the monkey-patching of gevent or eventlet: that removes '
        "the epoll that trio waits with, and replaces locks with some that trio refuses. Serve the app with real "
        'threads, as gunicorn\'s gthread worker does, or leave out backend="trio".'
    )


def no_loop_on_trio() -> AttributeError:
    """``ASGIMiddleware.loop`` with ``backend="trio"``."""
    return AttributeError(
        'With backend="trio", an ASGIMiddleware has no asyncio event loop. Call start() and close() to run the '
        "lifespan."
    )


def loop_broke(kind: str) -> BridgeError:
    """What a request gets whose loop failed with an error of the type ``kind``."""
    return BridgeError(
        f"The event loop failed with {kind} while it handled the request; the traceback is in the log of a2wsgi. The "
        "request gets no answer. The next request starts another loop."
    )


def no_daemon_threads() -> MissingCapability:
    """An interpreter in which we cannot start our loop's thread."""
    if sys.platform == "emscripten":
        return MissingCapability(
            "The bridge runs the ASGI app in a daemon thread, and WebAssembly has no threads. Create the bridge with "
            "inline=True, which runs the app in the thread that calls it."
        )
    return MissingCapability(
        "The bridge runs the ASGI app in a daemon thread, and this subinterpreter allows none (PEP 684). Create the "
        "bridge with inline=True, which runs the app in the server's own thread, or serve it in the main interpreter."
    )


def one_more(error: Exception) -> Exception:
    """An error like ``error``, for one more thread to raise: each raise adds to an error's traceback."""
    try:
        import copy  # noqa: PLC0415 - few programs need it

        other = copy.copy(error)
    except Exception:  # noqa: BLE001 - of a class with a constructor of its own, which a task factory may have raised
        other = None
    if other is None or other is error:
        other = BridgeError(
            f"The app's startup, which several requests were waiting for, failed with {type(error).__name__}. The next "
            "request tries it again."
        )
    other.__cause__ = error.__cause__
    return other


# -- What an app ended in ---------------------------------------------------------------------------------------------


def fit_for_a_server(error: BaseException, *, inline: bool) -> BaseException:
    """The error that the server gets for what the app raised: the same object, unless that would harm the server.

    Args:
        error: What the app raised.
        inline: The app ran in the server's own thread. What ends a thread there comes from the server itself, as when
            a signal handler of gunicorn's raises ``SystemExit`` to end a worker, or from the user's Ctrl-C.
    """
    kind = type(error)  # isinstance() would ask the error's own __class__
    if kind is AppError and isinstance(wrapped := error.__cause__, (SystemExit, KeyboardInterrupt)):
        return wrapped  # of a WSGI app behind another bridge: the server gets what it would without the two
    if is_cancellation(error):
        name = kind.__name__
        fault: BaseException = AppProtocolError(
            f"The ASGI app raised {name}, although neither the bridge nor the server cancelled it. The response is "
            f"incomplete. Catch {name} where the app cancels a task of its own."
        )
    elif issubclass(kind, Exception) or (inline and not issubclass(kind, GeneratorExit)):
        return error
    else:
        fault = AppError(
            f"The ASGI app raised {kind.__name__}, which would end the server's thread, so only this "
            "request fails. Raise an Exception instead."
        )
    fault.__cause__ = error
    return fault


def is_cancellation(error: BaseException) -> bool:
    """Whether it is asyncio's ``CancelledError``, or trio's ``Cancelled``."""
    kind, trio = type(error), sys.modules.get("trio")  # isinstance() would ask the error's own __class__
    return issubclass(kind, asyncio.CancelledError) or (trio is not None and issubclass(kind, trio.Cancelled))
