"""The tables of options: what is refused and how, and that all that must be written twice says the same."""

from __future__ import annotations

import ast
import asyncio
import datetime as dt
import inspect
import math
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

import a2wsgi
from a2wsgi import ASGIMiddleware, WSGIMiddleware, _types, to_asgi, to_wsgi
from a2wsgi._asgi_on_wsgi import bridge as asgi_on_wsgi
from a2wsgi._asgi_on_wsgi.settings import ASGISettings
from a2wsgi._front import asgi_middleware, wsgi_middleware
from a2wsgi._options import Settings
from a2wsgi._wsgi_on_asgi import bridge as wsgi_on_asgi
from a2wsgi._wsgi_on_asgi.settings import WSGISettings
from apps import echo, hello


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Is never called."""


BRIDGES: list[tuple[Any, Any, type[Settings]]] = [
    (WSGIMiddleware, hello.app, WSGISettings),
    (ASGIMiddleware, asgi_app, ASGISettings),
]
EACH = [
    pytest.param(bridge, app, name, id=f"{settings.bridge}-{name}")
    for bridge, app, settings in BRIDGES
    for name in settings.options
]
WHOLE = {
    "workers": 1,
    "send_queue_size": 1,
    "request_buffer_bytes": 0,
    "response_buffer_bytes": 0,
    "max_request_bytes": 0,
    "max_queue": 0,
    "max_websockets": 0,
    "websocket_max_message_bytes": 0,
}
SECONDS = {
    "app_timeout",
    "send_timeout",
    "receive_timeout",
    "shutdown_timeout",
    "startup_timeout",
    "grace_timeout",
    "wait_time",
}
FLAGS = {
    "spool_request",
    "ignore_disconnect",
    "allow_underscores",
    "detach_background",
    "inline",
    "lifespan",
    "websocket_compression",
}
PINGS = {"websocket_ping_interval", "websocket_ping_timeout"}
OTHERS = {"script_name", "multiprocess", "loop", "backend", *PINGS}
RANGE = "a number of seconds from 0 to 4,294,967"


def refusal(make: Any, *args: Any, **options: Any) -> tuple[type, str]:
    """The type and the text of the error that a constructor raises."""
    with pytest.raises((TypeError, ValueError)) as raised:
        make(*args, **options)
    return raised.type, str(raised.value)


def names_of(kinds: set[str] | dict[str, int]) -> list[Any]:
    """Those parameters of `EACH` whose option is of these."""
    return [each for each in EACH if each.values[2] in kinds]


def test_every_option_is_of_a_kind_that_is_tested_here() -> None:
    """A new option joins one of the sets above."""
    names = {name for _, _, settings in BRIDGES for name in settings.options}
    assert names == {*WHOLE, *SECONDS, *FLAGS, *OTHERS}


# -- Values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bridge", "app", "name"), names_of(WHOLE))
@pytest.mark.parametrize("value", [True, 1.0, "4", b"4", math.inf, []], ids=repr)
def test_whole_number_is_nothing_else(bridge: Any, app: Any, name: str, value: Any) -> None:
    """A bool, a float and a string are refused, by the option's and the class's name."""
    kind, text = refusal(bridge, app, **{name: value})
    assert kind is TypeError
    assert text.startswith(f"{bridge.__name__}({name}=")
    assert f": {name} must be a whole number, {WHOLE[name]} or more" in text


@pytest.mark.parametrize(("bridge", "app", "name"), names_of(PINGS))
def test_ping_takes_some_time(bridge: Any, app: Any, name: str) -> None:
    """A tenth of a second at least: with none, the loop would do nothing else. None is no ping, or no end."""
    for value in (0.1, 20, None):
        bridge(app, **{name: value})
    kind, text = refusal(bridge, app, **{name: 0})
    assert kind is ValueError
    assert f"{name} must be a number of seconds from 0.1 to 4,294,967, or None." in text
    assert refusal(bridge, app, **{name: "20"})[0] is TypeError


@pytest.mark.parametrize(("bridge", "app", "name"), names_of(WHOLE))
def test_whole_number_has_a_minimum(bridge: Any, app: Any, name: str) -> None:
    """The error names it; the minimum itself is taken."""
    least = WHOLE[name]
    bridge(app, **{name: least})
    kind, text = refusal(bridge, app, **{name: least - 1})
    assert kind is ValueError
    assert text.startswith(f"{bridge.__name__}({name}={least - 1}): {name} must be a whole number, {least} or more")


@pytest.mark.parametrize(("bridge", "app", "name"), names_of(SECONDS))
@pytest.mark.parametrize("value", [-0.1, -1, math.inf, -math.inf, math.nan, 1e10], ids=repr)
def test_seconds_have_a_range(bridge: Any, app: Any, name: str, value: float) -> None:
    """Infinity, NaN and what no lock can wait for would fail in the middle of a request."""
    kind, text = refusal(bridge, app, **{name: value})
    assert kind is ValueError
    assert text.startswith(f"{bridge.__name__}({name}={value}): {name} must be {RANGE}")


@pytest.mark.parametrize(("bridge", "app", "name"), names_of(SECONDS))
@pytest.mark.parametrize("value", [True, "60", dt.timedelta(1)], ids=repr)
def test_seconds_are_a_number(bridge: Any, app: Any, name: str, value: Any) -> None:
    """Whole or not; a bool is none."""
    assert refusal(bridge, app, **{name: value})[0] is TypeError
    for taken in (0, 1, 0.5):
        bridge(app, **{name: taken})


@pytest.mark.parametrize(("bridge", "app", "name"), names_of(FLAGS))
@pytest.mark.parametrize("value", [0, 1, "", "0", "false"], ids=repr)
def test_flag_is_true_or_false(bridge: Any, app: Any, name: str, value: Any) -> None:
    """A string of the environment would be true, whatever it says."""
    kind, text = refusal(bridge, app, **{name: value})
    assert kind is TypeError
    assert text.startswith(f"{bridge.__name__}({name}={value!r}): {name} must be True or False")
    bridge(app, **{name: True})
    bridge(app, **{name: False})


@pytest.mark.parametrize(("bridge", "app", "name"), EACH)
def test_none_is_taken_where_the_type_says_so(bridge: Any, app: Any, name: str) -> None:
    """And nowhere else."""
    settings = {WSGIMiddleware: WSGISettings, ASGIMiddleware: ASGISettings}[bridge]
    if "None" in settings.options[name].type:
        bridge(app, **{name: None})
    else:
        kind, text = refusal(bridge, app, **{name: None})
        assert kind is TypeError
        assert text.startswith(f"{bridge.__name__}({name}=None): {name} must be ")
        assert not text.endswith("or None.")


def test_string_of_the_environment_is_told_how_to_become_a_number() -> None:
    """``os.environ`` has strings only."""
    assert refusal(WSGIMiddleware, hello.app, workers="4") == (
        TypeError,
        (
            "WSGIMiddleware(workers='4'): workers must be a whole number, 1 or more, or None. This is a string, as "
            "from os.environ. Pass int('4')."
        ),
    )
    assert refusal(ASGIMiddleware, asgi_app, wait_time="1.5")[1].endswith(" Pass float('1.5').")
    assert refusal(ASGIMiddleware, asgi_app, wait_time="60")[1].endswith(" Pass int('60').")
    assert refusal(WSGIMiddleware, hello.app, workers="1.5")[1].endswith("or None.")
    assert refusal(WSGIMiddleware, hello.app, workers="many")[1].endswith("or None.")


def test_infinity_is_told_what_waits_for_ever() -> None:
    """Where None does."""
    assert refusal(WSGIMiddleware, hello.app, send_timeout=math.inf)[1].endswith(" None waits forever.")
    assert refusal(WSGIMiddleware, hello.app, shutdown_timeout=math.inf)[1].endswith(f" must be {RANGE}.")


def test_text_and_loop_are_what_they_say() -> None:
    """Of a loop its methods matter, not its class."""
    assert refusal(WSGIMiddleware, hello.app, script_name=b"/shop") == (
        TypeError,
        "WSGIMiddleware(script_name=b'/shop'): script_name must be a string, or None.",
    )
    assert refusal(ASGIMiddleware, asgi_app, loop=asyncio) == (
        TypeError,
        "ASGIMiddleware(loop=<builtins.module>): loop must be an event loop, or None.",
    )
    assert refusal(ASGIMiddleware, asgi_app, backend=asyncio) == (
        TypeError,
        'ASGIMiddleware(backend=<builtins.module>): backend must be "asyncio" or "trio".',
    )
    assert refusal(ASGIMiddleware, asgi_app, backend="curio") == (
        ValueError,
        'ASGIMiddleware(backend=\'curio\'): backend must be "asyncio" or "trio".',
    )
    with pytest.deprecated_call():
        ASGIMiddleware(asgi_app, loop=False)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


class Unspeakable:
    def __repr__(self) -> str:
        raise ZeroDivisionError


def test_value_that_cannot_be_shown_is_named_by_its_type() -> None:
    """Its ``repr`` may raise, be long, or show what is secret."""
    text = refusal(WSGIMiddleware, hello.app, workers=Unspeakable())[1]
    assert text.startswith(f"WSGIMiddleware(workers=<{__name__}.Unspeakable>): workers must be ")
    assert len(refusal(WSGIMiddleware, hello.app, workers="9" * 1000)[1]) < 300


# -- Names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bridge", "app", "option", "message"),
    [
        (WSGIMiddleware, hello.app, "worker", "WSGIMiddleware has no option worker. Did you mean workers?"),
        (
            ASGIMiddleware,
            asgi_app,
            "grace_timout",
            "ASGIMiddleware has no option grace_timout. Did you mean grace_timeout?",
        ),
        (
            WSGIMiddleware,
            hello.app,
            "inline",
            (
                "WSGIMiddleware has no option inline: that is an option of ASGIMiddleware. A WSGI app always gets a "
                "WSGIMiddleware and an ASGI app an ASGIMiddleware, whichever class you call."
            ),
        ),
        (
            WSGIMiddleware,
            asgi_app,
            "workers",
            (
                "ASGIMiddleware has no option workers: that is an option of WSGIMiddleware. A WSGI app always gets a "
                "WSGIMiddleware and an ASGI app an ASGIMiddleware, whichever class you call."
            ),
        ),
        (
            ASGIMiddleware,
            asgi_app,
            "nonsense",
            (
                "ASGIMiddleware has no option nonsense. It has these: wait_time, loop, detach_background, inline, "
                "backend, lifespan, response_buffer_bytes, app_timeout, receive_timeout, grace_timeout, "
                "startup_timeout, shutdown_timeout, max_websockets, websocket_max_message_bytes, "
                "websocket_ping_interval, websocket_ping_timeout, websocket_compression."
            ),
        ),
    ],
)
def test_name_that_is_none_is_told_which_was_meant(bridge: Any, app: Any, option: str, message: str) -> None:
    """The one that is nearly it, or the class that has it, or all."""
    assert refusal(bridge, app, **{option: 1}) == (TypeError, message)


def test_python_s_own_errors_name_the_public_classes() -> None:
    """As of a missing app, or one argument too many."""
    for make, app in ((WSGIMiddleware, hello.app), (ASGIMiddleware, asgi_app)):
        name = make.__name__
        assert refusal(make)[1].startswith(f"{name}.__init__() missing 1 required positional argument: 'app'")
        assert refusal(make, app, 1, None, 3)[1].startswith(f"{name}.__init__() takes from 2 to 4 positional arguments")
    assert refusal(WSGIMiddleware(hello.app).statistics, 1)[1].startswith("WSGIMiddleware.statistics() takes ")
    assert refusal(ASGIMiddleware(asgi_app).close, 1)[1].startswith("ASGIMiddleware.close() takes ")


# -- to_asgi and to_wsgi ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", [hello.app, asgi_app])
def test_conversions_check_options_whether_a_bridge_is_made_or_not(app: Any) -> None:
    """Values and combinations, too."""
    convert_to_asgi: Any = to_asgi
    convert_to_wsgi: Any = to_wsgi
    assert refusal(convert_to_asgi, app, workers=0)[0] is ValueError
    assert refusal(convert_to_wsgi, app, grace_timeout=-1)[0] is ValueError
    assert refusal(convert_to_asgi, app, worker=1)[1].endswith("Did you mean workers?")
    assert "Leave out inline" in refusal(convert_to_wsgi, app, inline=True, detach_background=True)[1]
    assert refusal(convert_to_asgi, app, app=app)[1].startswith("WSGIMiddleware was given two apps.")


# -- What stands twice ------------------------------------------------------------------------------------------------

DICTS = [
    (WSGISettings, _types.ToASGIOptions, _types.WSGIMiddlewareOptions),
    (ASGISettings, _types.ToWSGIOptions, _types.ASGIMiddlewareOptions),
]


@pytest.mark.parametrize(("settings", "every", "keywords"), DICTS)
def test_static_types_are_those_of_the_table(settings: type[Settings], every: Any, keywords: Any) -> None:
    """The TypedDicts have each option with its type; those of the constructors all but the two positional ones."""
    types = {name: eval(option.type, dict(vars(typing))) for name, option in settings.options.items()}  # noqa: S307
    types = {name: Any if name == "loop" else kind for name, kind in types.items()}  # a type that is not imported
    assert typing.get_type_hints(every) == types
    assert list(typing.get_type_hints(keywords)) == list(types)[2:]


@pytest.mark.parametrize(
    ("module", "number"),
    [
        (wsgi_middleware, 2),  # an overload for each kind of app
        (asgi_middleware, 2),
        (wsgi_on_asgi, 1),
        (asgi_on_wsgi, 1),
    ],
)
def test_positional_options_are_the_same_in_every_overload(module: Any, number: int) -> None:
    """Each constructor and overload names the two of 1.10.10 with the type and default of the table."""
    found = 0
    for function in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(function, ast.FunctionDef) or function.name not in {"__new__", "__init__"}:
            continue
        given = function.args.args[2:]
        if function.args.kwarg is None or not given:  # a request's, or the one that takes anything
            continue
        settings = WSGISettings if given[0].arg == "workers" else ASGISettings
        assert [parameter.arg for parameter in given] == list(settings.options)[:2]
        for parameter, default in zip(given, function.args.defaults, strict=True):
            option = settings.options[parameter.arg]
            assert parameter.annotation is not None
            spelt = ast.unparse(parameter.annotation).removeprefix("asyncio.").replace("AbstractEventLoop", "Any")
            assert (spelt, ast.literal_eval(default)) == (option.type, option.default)
        found += 1
    assert found == number


@pytest.mark.parametrize(("bridge", "app", "settings"), BRIDGES)
def test_class_documents_each_option_once(bridge: Any, app: Any, settings: type[Settings]) -> None:
    """Among the *Args*, in the order of the signature, and between what else the docstring says."""
    doc = inspect.getdoc(bridge)
    assert doc is not None
    args, rest = doc.split("\nArgs:\n")[1].split("\n\n", 1)
    assert re.findall(r"^    (\w+): ", args, re.MULTILINE) == ["app", *settings.options]
    assert list(inspect.signature(bridge).parameters) == ["app", *settings.options]
    assert rest.startswith("Threading: ")
    assert max(map(len, doc.splitlines())) <= 120
    assert bridge(app).__doc__ == bridge.__doc__


@pytest.mark.parametrize(("bridge", "app", "settings"), BRIDGES)
def test_defaults_are_those_of_the_table(bridge: Any, app: Any, settings: type[Settings]) -> None:
    """Each default passes its own check, and is what a bridge has that is not told."""
    defaults = {name: option.default for name, option in settings.options.items()}
    assert vars(settings()) == vars(settings(**defaults)) == defaults
    shown = inspect.signature(bridge).parameters
    assert {name: shown[name].default for name in defaults} == defaults


def test_documentation_of_options_names_classes_that_there_are() -> None:
    """A name in single backquotes is a link of the reference."""
    for _, _, settings in BRIDGES:
        for option in settings.options.values():
            for name in re.findall(r"(?<!`)`(\w+)`(?!`)", option.doc):
                assert hasattr(a2wsgi, name) or hasattr(ASGIMiddleware, name)


def test_package_can_be_imported_without_docstrings() -> None:
    """``python -OO`` leaves none to put the options into."""
    code = "import sys, a2wsgi; sys.exit(a2wsgi.WSGIMiddleware.__doc__)"  # 0 for None
    source = Path(a2wsgi.__file__).parent.parent
    subprocess.run([sys.executable, "-OO", "-c", code], check=True, cwd=source, timeout=50)


def test_bridge_goes_by_what_it_is_given() -> None:
    """The settings that a request sees are those of the constructor."""
    options: dict[str, Any] = {"workers": 3, "send_queue_size": 2, "response_buffer_bytes": 9, "receive_timeout": None}
    bridge: Any = WSGIMiddleware(echo.app, **options)
    assert vars(bridge._shared.settings) == {**vars(WSGISettings()), **options}
    other: Any = ASGIMiddleware(asgi_app, 1.5, grace_timeout=2, lifespan=False)
    assert vars(other._shared.settings) == {
        **vars(ASGISettings()),
        "wait_time": 1.5,
        "grace_timeout": 2,
        "lifespan": False,
    }
