"""``wsgi.input`` behaves as ``io.BufferedReader`` over the same bytes, however they come."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, Literal, TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from a2wsgi import ClientDisconnected, RequestTooLarge
from a2wsgi._threads.runtime import Runtime
from a2wsgi._wsgi_on_asgi.deprecated import PulledBody
from a2wsgi._wsgi_on_asgi.input import BodyReader, WholeBody, streamed_input
from a2wsgi._wsgi_on_asgi.streams import ToThread
from support.lockstep import BOUND_SECONDS, Signal
from support.runtimes import KINDS, on, run, verbs, within
from support.threads import in_thread

Call: TypeAlias = tuple[str, int | None]

#: Of these the result is the same, whatever the cut.
EXACT = ("read", "readline", "readlines", "readinto", "iterate")
#: These give what there is: a part of the rest that is empty only at its end or where nothing was asked for.
SOME = ("read1", "readinto1", "peek")


class Anywhere(asyncio.SelectorEventLoop):
    """A loop that never runs, for a stream that has it all."""


def stream_of(runtime: Runtime, chunks: Iterable[bytes]) -> ToThread:
    """A stream that has all that is to come."""
    stream = ToThread(runtime, 0)
    for chunk in chunks:
        stream.put(chunk)
    stream.finish()
    return stream


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    """The parts of ``body`` between the places; none is empty, as none that is put is."""
    ends = sorted({place % len(body) for place in places} - {0}) if body else []
    return [part for part in (body[i:j] for i, j in itertools.pairwise([0, *ends, len(body)])) if part]


def perform(file: Any, call: Call) -> object:
    """Call a method of ``file``, and give what it gave."""
    name, size = call
    match name:
        case "read" | "readline" | "readlines":
            return getattr(file, name)() if size is None else getattr(file, name)(size)
        case "none":
            return file.read(None), file.readline(-1), file.readlines(-1)
        case "iterate":
            return list(itertools.islice(file, size))
        case "readinto" | "readinto1":
            buffer = bytearray(max(size or 0, 0))
            count = getattr(file, name)(buffer)
            return bytes(buffer[:count])
        case _:
            return getattr(file, name)(-1 if size is None else size)


def compare(file: io.BufferedReader | WholeBody, body: bytes, calls: Iterable[Call]) -> None:
    """Perform the calls on ``file`` and on a reader over ``body``, and see that they agree."""
    model = io.BufferedReader(io.BytesIO(body))
    for call in calls:
        name, size = call
        result = perform(file, call)
        if name not in SOME:
            assert result == perform(model, call), call
            continue
        assert isinstance(result, bytes)
        rest = body[model.tell() :]
        assert rest.startswith(result)
        if name != "peek":
            assert size is None or size < 0 or len(result) <= size
            model.read(len(result))
        asked = size != 0 if name != "readinto1" else (size or 0) > 0
        assert bool(result) == (bool(rest) and (asked or name == "peek")), call
    assert file.read() == model.read()
    assert [file.read(), file.read(1), file.read1(), file.readline(), file.peek()] == [b""] * 5


sizes = st.none() | st.integers(-1, 40) | st.sampled_from([100, 8192])
calls = st.lists(
    st.tuples(st.sampled_from(["read", "readline", "readlines", *SOME]), sizes)
    | st.tuples(st.sampled_from(["readinto", "iterate"]), st.integers(0, 40))
    | st.just(("none", None)),
    max_size=12,
)
bodies = st.lists(st.sampled_from([b"\n", b"a", b"\r\n", b"bc" * 7, b"\x00\xff"]), max_size=60).map(b"".join)


@given(bodies, st.lists(st.integers(0, 1000), max_size=10), st.sampled_from([0, 1, 7, 64, 65536]), calls)
@example(b"a\nb", [1], 1, [("peek", None), ("readline", 1), ("read1", -1), ("readlines", 1)])
@example(b"", [], 0, [("peek", 0), ("iterate", 3)])
@settings(max_examples=300)
def test_input_behaves_as_a_buffered_reader(
    body: bytes, places: list[int], buffer_bytes: int, calls: list[Call]
) -> None:
    """Any body, in any cut, under any calls, behind any buffer."""
    loop = Anywhere()
    try:
        compare(streamed_input(stream_of(Runtime(loop), cut(body, places)), None, buffer_bytes), body, calls)
    finally:
        loop.close()


@given(bodies, calls)
@example(b"a\nb\nc\n", [("readlines", 2), ("peek", 1), ("readlines", 1)])
@settings(max_examples=200)
def test_input_that_is_complete_behaves_as_a_buffered_reader(body: bytes, calls: list[Call]) -> None:
    """A body that is in memory is no different."""
    compare(WholeBody(body), body, calls)


@given(
    st.lists(st.tuples(bodies, st.lists(st.integers(0, 1000), max_size=10), calls), min_size=1, max_size=5),
    st.sampled_from([0, 1, 7, 64]),
    st.sampled_from([1, 16, 65536]),
)
@settings(max_examples=30)
@pytest.mark.parametrize("kind", KINDS)  # Hypothesis wants no fixture that is made once for all its examples
def test_input_behaves_as_a_buffered_reader_while_the_body_arrives(
    kind: str, requests: list[tuple[bytes, list[int], list[Call]]], limit: int, buffer_bytes: int
) -> None:
    """The same with a loop that brings each part when there is room for it, and a thread that reads meanwhile."""
    if kind != "asyncio":
        pytest.importorskip(kind)

    async def feed(stream: ToThread, chunks: list[bytes]) -> None:
        for chunk in chunks:
            await stream.wait_room()
            stream.put(chunk)
            stream.flush()
        stream.finish()
        stream.flush()

    async def story() -> None:
        runtime = verbs()
        for body, places, calls in requests:
            stream = ToThread(runtime, limit)
            reading = in_thread(compare, streamed_input(stream, None, buffer_bytes), body, calls)
            await within(BOUND_SECONDS, feed(stream, cut(body, places)))
            await reading.result_in_task()

    with on(kind):
        run(story())


@pytest.mark.parametrize("buffer_bytes", [0, 1, 100])
def test_line_is_not_read_byte_by_byte(buffer_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little is to be read ahead: `io.BufferedReader` fills its buffer anew for each part of a line."""
    reads = 0
    readinto = BodyReader.readinto

    def counted(reader: BodyReader, buffer: Any) -> int:
        nonlocal reads
        reads += 1
        return readinto(reader, buffer)

    monkeypatch.setattr(BodyReader, "readinto", counted)
    loop = Anywhere()
    line = b"x" * 65_535 + b"\n"
    assert streamed_input(stream_of(Runtime(loop), [line]), None, buffer_bytes).readline() == line
    loop.close()
    assert reads <= 8


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("buffer_bytes", [1 << 42, sys.maxsize])
def test_limit_that_means_none_takes_no_memory(buffer_bytes: int) -> None:
    """``io.BufferedReader`` allocates its whole buffer: of such a size it would be a MemoryError."""

    async def story() -> None:
        assert streamed_input(stream_of(verbs(), [b"ab", b"c"]), None, buffer_bytes).read() == b"abc"

    run(story())


@pytest.mark.usefixtures("runtime")
def test_read_of_what_is_there_does_not_wait_for_a_full_buffer() -> None:
    """A fill takes what has arrived."""

    async def story() -> None:
        stream = ToThread(verbs(), 100)
        file = streamed_input(stream, None, 0)
        for part in (b"a\n", b"b\n"):
            stream.put(part)
            assert in_thread(file.readline).result() == part

    run(story())


# -- Bodies that do not arrive whole ----------------------------------------------------------------------------------

READS: list[Callable[[io.BufferedReader], object]] = [
    lambda file: file.read(),
    lambda file: file.read(100),
    lambda file: file.read1(),
    lambda file: file.readline(),
    lambda file: file.readlines(),
    lambda file: file.readinto(bytearray(100)),
    lambda file: file.peek(),
    list,
    next,
]


@pytest.mark.parametrize("error", [ClientDisconnected("it left"), RequestTooLarge(3)], ids=["left", "too large"])
@pytest.mark.parametrize("first", READS)
@pytest.mark.usefixtures("runtime")
def test_input_that_did_not_arrive_whole_raises_each_time(
    error: Exception, first: Callable[[io.BufferedReader], object]
) -> None:
    """Reading past what came raises, whatever the call, now and again: it never looks complete."""

    async def story() -> None:
        stream = ToThread(verbs(), 100)
        file = streamed_input(stream, None, 4)
        stream.put(b"abc\ndef")
        assert file.read(7) == b"abc\ndef"
        stream.abort(lambda: error)
        for read in (first, *READS, *READS):
            with pytest.raises(type(error)):
                read(file)

    run(story())


@pytest.mark.usefixtures("runtime")
def test_input_gives_what_was_taken_before_it_raises() -> None:
    """What the reader has in its own buffer when the client leaves can be read; what comes then is no end."""

    async def story() -> None:
        stream = ToThread(verbs(), 100)
        file = streamed_input(stream, None, 4)
        stream.put(b"abcdef")
        assert file.peek() == b"abcdef"
        stream.abort(lambda: ClientDisconnected("it left"))
        assert file.read(6) == b"abcdef"
        for _ in range(2):
            with pytest.raises(ClientDisconnected):
                file.read1()

    run(story())


@pytest.mark.usefixtures("runtime")
def test_input_wakes_a_reader_when_the_request_ends() -> None:
    """A thread that waits in a read has the error at once."""

    async def story() -> None:
        stream = ToThread(verbs(), 100)
        file = streamed_input(stream, None, 100)
        stream.put(b"abc")
        asked = Signal("the reader has read what there was")

        def read() -> bytes:
            assert file.read(3) == b"abc"
            asked.set()
            return file.read(1)

        reading = in_thread(read)
        await asked.wait_in_task()
        stream.abort(lambda: ClientDisconnected("it left"))
        with pytest.raises(ClientDisconnected):
            await reading.result_in_task()

    run(story())


@pytest.mark.parametrize("ending", ["bytes", "end"])
@pytest.mark.usefixtures("runtime")
def test_input_wakes_a_reader_for_bytes_and_for_the_end(ending: Literal["bytes", "end"]) -> None:
    """A read of one part waits for no other; one at the end is over with it."""

    async def story() -> None:
        stream = ToThread(verbs(), 100)
        reading = in_thread(streamed_input(stream, None, 100).read1)
        if ending == "bytes":
            stream.put(b"abc")
        else:
            stream.finish()
        stream.flush()
        assert await reading.result_in_task() == (b"abc" if ending == "bytes" else b"")

    run(story())


# -- Asking for the body ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", READS)
def test_input_asks_once_and_before_its_first_read(read: Callable[[io.BufferedReader], object]) -> None:
    """A body that is not sent unless asked for is asked for by the first read, whichever that is, and by no other."""
    loop = Anywhere()
    asked: list[bool] = []
    stream = ToThread(Runtime(loop), 100)

    def ask() -> None:
        asked.append(True)
        stream.put(b"abc\n")
        stream.finish()

    file = streamed_input(stream, ask, 100)
    assert asked == []
    assert read(file)
    file.read()
    file.read()
    assert asked == [True]
    loop.close()


def test_input_asks_nothing_when_nothing_is_read() -> None:
    """An app that looks at its input, or closes it, has asked for nothing."""
    loop = Anywhere()
    asked: list[bool] = []
    file = streamed_input(ToThread(Runtime(loop), 100), lambda: asked.append(True), 100)
    assert file.readable()
    assert not file.writable()
    assert not file.seekable()
    assert file.read(0) == b""
    file.close()
    assert asked == []
    loop.close()


# -- The raw stream ---------------------------------------------------------------------------------------------------


def _words(size: int) -> Any:
    return memoryview(bytearray(size)).cast("H")


@pytest.mark.parametrize("kind", [bytearray, lambda size: memoryview(bytearray(size)), _words])
def test_raw_stream_fills_any_buffer(kind: Callable[[int], Any]) -> None:
    """It takes what fits and gives the rest next time, also for buffers whose items are not bytes."""
    loop = Anywhere()
    raw = BodyReader(stream_of(Runtime(loop), [b"abcdef", b"gh"]), None)
    got = b""
    for _ in range(10):
        buffer = kind(4)
        count = raw.readinto(buffer)
        assert count <= 4
        got += bytes(memoryview(buffer).cast("B")[:count])
    assert got == b"abcdefgh"
    loop.close()


def test_raw_stream_reads_all() -> None:
    """Without a size it reads to the end, from wherever it is."""
    loop = Anywhere()
    raw = BodyReader(stream_of(Runtime(loop), [b"abcdef", b"gh"]), None)
    assert raw.read(2) == b"ab"
    assert raw.readall() == b"cdefgh"
    assert raw.readall() == b""
    assert raw.read() == b""
    loop.close()


def test_whole_body_refuses_a_size_below_all() -> None:
    """As ``io.BufferedReader`` and a body that still arrives: -1 and None are all that is left, less is an error."""
    loop = Anywhere()
    for file in (WholeBody(b"ab"), streamed_input(stream_of(Runtime(loop), [b"ab"]), None, 8)):
        with pytest.raises(ValueError, match="read length must be non-negative or -1"):
            file.read(-2)
        assert file.read(None) == b"ab"
        assert file.read(-1) == b""
    loop.close()


@pytest.mark.parametrize("kind", ["streamed", "pulled"])
def test_raw_stream_keeps_no_view_of_the_buffer(kind: str) -> None:
    """A buffer that was read into can be resized at once, also where nothing is freed at once (PyPy)."""
    kept: list[dict[str, Any]] = []

    def keep(frame: FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code.co_name == "readinto":
            kept.append(dict(frame.f_locals))  # as a collector does that is in no hurry

    with contextlib.closing(Anywhere()) as loop:
        if kind == "streamed":
            raw: Any = BodyReader(stream_of(Runtime(loop), [b"abc"]))
        else:
            raw = PulledBody(loop, None).raw  # type: ignore[arg-type]  # nothing is received
            raw._rest = memoryview(b"abc")
        buffer = bytearray(3)
        before = sys.getprofile()
        sys.setprofile(keep)
        try:
            assert raw.readinto(buffer) == 3
        finally:
            sys.setprofile(before)
    assert kept
    buffer += b"more"
    assert buffer == b"abcmore"
