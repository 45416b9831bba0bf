"""The one exception a user of the library has to know."""


class InputError(ValueError):
    """Something handed in from outside is wrong: a flag, a config, a file, an array or a graph.

    The message is one line that names what is wrong, its value, and what is allowed; the scripts print it
    and exit with status 2.
    """
