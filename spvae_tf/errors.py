"""The one exception a user of the library has to know, and the checks that raise it most."""

import numbers


class InputError(ValueError):
    """Something handed in from outside is wrong: a flag, a config, a file, an array or a graph.

    The message is one line that names what is wrong, its value, and what is allowed; the scripts print it
    and exit with status 2.
    """


def check_count(name, value):
    """Refuses what is not a positive integer.

    Args:
      name: of the argument, for the message.
      value: anything.

    Returns:
      The value as int, whatever NumPy's kind of integer it was.

    Raises:
      InputError: when the value is no integer or below 1.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} is {value!r}; it must be an integer of at least 1")
    return int(value)


def check_seed(seed):
    """Refuses what cannot be a seed.

    Args:
      seed: anything.

    Raises:
      InputError: when the seed is no integer or negative.
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"seed is {seed!r}; it must be an integer of at least 0")
