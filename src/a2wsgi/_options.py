"""What the options of both bridges have in common: how they are written, checked, described and shown.

Each wing has its own table of options, in its ``settings.py``. Four things are derived from it: what the constructors,
`to_asgi` and `to_wsgi` accept and refuse; the signatures that `inspect` shows; and the *Args* of the classes'
docstrings, from which the reference is built. A type checker can follow none of that, so the static types are repeated
in ``_types``, and in the overloads of ``__new__``. A test compares them.
"""

from __future__ import annotations

import inspect
import math
import types
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

#: `threading.TIMEOUT_MAX` on Windows, in seconds: 49 days. A longer wait raises OverflowError there.
_LONGEST: Final = 4_294_967


class Check:
    """What the value of an option must be.

    Args:
        text: What follows "must be" in a message.
        types: The types of which it must be. ``bool`` counts as ``int`` only where it is named.
        least: The smallest number.
        most: The largest number.
    """

    __slots__ = ("least", "most", "text", "types")

    def __init__(self, text: str, types: tuple[type, ...], least: float = 0, most: float = math.inf) -> None:
        self.text = text
        self.types = types
        self.least = least
        self.most = most

    def is_of_type(self, value: object) -> bool:
        """Whether ``value`` is of one of the types."""
        return isinstance(value, self.types) and (bool in self.types or not isinstance(value, bool))

    def is_in_range(self, value: object) -> bool:
        """Whether ``value``, which is of one of the types, is one of those that are allowed."""
        # Not a number is in no range.
        return not isinstance(value, (int, float)) or self.least <= value <= self.most


class Choice(Check):
    """One of some strings."""

    __slots__ = ("_choices",)

    def __init__(self, *choices: str) -> None:
        super().__init__(" or ".join(f'"{choice}"' for choice in choices), (str,))
        self._choices = choices

    def is_in_range(self, value: object) -> bool:
        """Whether ``value`` is one of them."""
        return value in self._choices


def whole(least: int) -> Check:
    """A whole number, ``least`` or more."""
    return Check(f"a whole number, {least} or more", (int,), least)


FLAG = Check("True or False", (bool,))
SECONDS = Check(f"a number of seconds from 0 to {_LONGEST:,}", (int, float), 0, _LONGEST)
TEXT = Check("a string", (str,))


class Option:
    """One option of a bridge. Its name and type are those of the attribute of `Settings` that holds its value."""

    __slots__ = ("check", "default", "doc", "type")

    def __init__(self, default: object, check: Check, doc: str) -> None:
        self.default = default
        self.check = check
        self.doc = doc
        self.type: str  # set by the class whose option it is


def option(*, default: object, check: Check, doc: str) -> Any:  # noqa: ANN401 - so that the attribute has its own type
    """One option, as the value of the attribute that holds it in a table."""
    return Option(default, check, doc)


class Settings:
    """The checked options of one bridge, as attributes.

    Args:
        given: The options that are not to have their defaults.

    Raises:
        TypeError: There is no such option, or its value is of the wrong type, or two options exclude each other.
        ValueError: A value is out of its range.
    """

    bridge: ClassVar[str]
    options: ClassVar[dict[str, Option]]

    def __init_subclass__(cls, bridge: str) -> None:
        cls.bridge = bridge
        cls.options = {}
        for name, annotation in cls.__annotations__.items():
            cls.options[name] = option = vars(cls)[name]
            option.type = annotation
            delattr(cls, name)

    def __init__(self, /, **given: object) -> None:
        for name, value in given.items():
            if name not in self.options:
                raise TypeError(self._unknown(name))
            _check(f"{self.bridge}({name}={_shown(value)}): {name}", self.options[name], value)
        for name, option in self.options.items():
            setattr(self, name, given.get(name, option.default))

    @classmethod
    def _unknown(cls, name: str) -> str:
        import difflib  # noqa: PLC0415 - costs more than all of this module

        # The wings do not import each other, so each is found among those that are loaded.
        for other in Settings.__subclasses__():
            if other is cls or name not in other.options:
                continue
            return (
                f"{cls.bridge} has no option {name}: that is an option of {other.bridge}. A WSGI app always gets a "
                "WSGIMiddleware and an ASGI app an ASGIMiddleware, whichever class you call."
            )
        if name == "app":
            return f"{cls.bridge} was given two apps. Pass one, as the first argument."
        close = difflib.get_close_matches(name, cls.options, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"It has these: {', '.join(cls.options)}."
        return f"{cls.bridge} has no option {name}. {hint}"


def _check(passed: str, option: Option, value: object) -> None:
    """Raise the error for a value that is wrong. ``passed`` begins its message."""
    check, may_be_none = option.check, "None" in option.type
    if value is None and may_be_none:
        return
    text = f"{passed} must be {check.text}{', or None' if may_be_none else ''}."
    if not check.is_of_type(value):
        raise TypeError(text + _mend(check, value))
    if not check.is_in_range(value):
        raise ValueError(f"{text} None waits forever." if value == math.inf and may_be_none else text)


def _mend(check: Check, value: object) -> str:
    """How to convert a string to a number, for those who read it from ``os.environ``."""
    if isinstance(value, str) and int in check.types:
        for convert in check.types:
            try:
                convert(value)
            except ValueError:
                continue
            return f" This is a string, as from os.environ. Pass {convert.__name__}({_shown(value)})."
    return ""


def _shown(value: object) -> str:
    """A value for messages. Only of builtin types by their ``repr``: others may raise, or show what is secret."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:60]}..."
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


# -- What a bridge's class shows ---------------------------------------------------------------------------------------


class ClassSignature:
    """The ``__signature__`` of a bridge's class: its ``__init__``'s, with each option by its name.

    `inspect` would go by ``__new__``, which takes anything. An instance has none: it is called as ``__call__`` says.
    """

    def __init__(self, settings: type[Settings]) -> None:
        self._settings = settings

    def __set_name__(self, owner: type, _: str) -> None:
        self._new = owner.__new__
        self._init = owner.__init__  # type: ignore[misc]  # it is looked at only

    def __get__(self, instance: object, cls: type) -> inspect.Signature:
        if instance is not None or cls.__new__ is not self._new:  # the latter in a subclass that has its own
            raise AttributeError("__signature__")
        init = cls.__init__  # type: ignore[misc]  # as above
        shown = inspect.signature(types.MethodType(init, cls))  # bound, so that it shows no self
        if init is not self._init:
            return shown
        positional = list(shown.parameters.values())[:-1]  # the last is **options
        rest = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.type)
            for name, option in self._settings.options.items()
            if name not in shown.parameters
        ]
        return shown.replace(parameters=[*positional, *rest])


class _ClassDoc:
    """The ``__doc__`` of a bridge's class, with its options among the *Args*. Made when it is asked for."""

    def __init__(self, doc: str, settings: type[Settings]) -> None:
        self._doc = doc
        self._settings = settings

    def __get__(self, instance: object, cls: type) -> str:
        import textwrap  # noqa: PLC0415 - few ask

        before, mark, after = inspect.cleandoc(self._doc).partition("\n\nThreading:")
        options = [
            textwrap.fill(
                f"{name}: {option.doc}", 116, initial_indent=" " * 4, subsequent_indent=" " * 8, break_on_hyphens=False
            )
            for name, option in self._settings.options.items()
        ]
        return "\n".join([before, *options]) + mark + after


_Bridge = TypeVar("_Bridge", bound=type)


def described(settings: type[Settings]) -> Callable[[_Bridge], _Bridge]:
    """Put a bridge's options into its docstring, behind the app."""

    def describe(bridge: _Bridge) -> _Bridge:
        if bridge.__doc__:  # python -OO leaves none
            bridge.__doc__ = cast("str", _ClassDoc(bridge.__doc__, settings))
        return bridge

    return describe
