"""The one exception that a user of the library has to know, and the checks that raise it most."""

import numbers
import reprlib


class InputError(ValueError):
    """A flag, a configuration, a file, an array or a graph is wrong; the message is one line.

    It says what is wrong, its value, and what is allowed. The scripts print it and exit with status 2.
    """


def check_integer(name, value, low=1, high=None):
    """The value as int, whatever its kind of integer; raises InputError unless it is one and low ≤ value ≤ high."""
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):
        allowed = f"of at least {low}" if high is None else f"in {low}..{high}"
        raise InputError(f"{name} is {short(value)}; it must be an integer {allowed}")
    return int(value)


def check_choice(name, value, allowed):
    """Raises InputError unless the value is one of the allowed names."""
    if value not in allowed:
        raise InputError(f"{name} is {short(value)}; it must be one of {', '.join(allowed)}")


def short(value):
    """A repr on one line, cut off in the middle where it is long."""
    return " ".join(reprlib.repr(value).split())
