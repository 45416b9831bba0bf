"""What all scripts share: one clear line and an exit status for whatever a user can get wrong."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: no start-up chatter

from absl import app, logging  # noqa: E402

from spvae_tf.errors import InputError  # noqa: E402


def run(main):
    """Runs a script's main function.

    Bad input is one line on standard error and exit status 2; a script returns 1 when part of its work failed.

    Args:
      main: function of the remaining command line that returns an exit status or None.
    """
    logging.set_verbosity(logging.ERROR)
    try:
        app.run(main)
    except InputError as error:
        _leave(error)
    except (AttributeError, KeyError, TypeError) as error:
        if "config" not in " ".join(sys.argv) or "ml_collections" not in _origin(error):
            raise
        _leave(f"--config: {' '.join(str(error).split())}")


def _origin(error):
    """The files of an error's traceback, to tell a wrong --config.key from a fault of the program."""
    files, trace = [], error.__traceback__
    while trace:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return files[-1] if files else ""


def _leave(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def refuse_arguments(argv):
    """Raises InputError when words are left over on the command line.

    Args:
      argv: what absl left of the command line, the program's name first.
    """
    if argv[1:]:
        raise InputError(f"{argv[1]!r} is no flag; see --help")
