"""What all scripts share: quiet start, and one clear line with an exit status for whatever a user can get wrong."""

import contextlib
import gc
import os
import re
import shlex
import signal
import sys
import tempfile

from absl import app, flags, logging


class _Output:
    """A standard stream that costs no result: it replaces what it cannot show, and goes on where nothing takes it."""

    def __init__(self, name):
        self._stream = getattr(sys, name)
        self._stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        return self._attempt(self._stream.write, text)

    def flush(self):
        self._attempt(self._stream.flush)

    def _attempt(self, method, *arguments):
        try:
            return method(*arguments)
        except OSError:  # a full disk, a pipe whose reader has gone, a lost terminal
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def _open_closed_streams():
    """Of a process that was started without standard streams; else the first files opened would take their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))


@contextlib.contextmanager
def _quiet_start():
    """Holds back what TensorFlow's libraries print while they load; it comes out if loading fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


_open_closed_streams()
sys.stdout, sys.stderr = _Output("stdout"), _Output("stderr")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # several processes share a GPU
gc.disable()  # what is imported stays: a second is spent on looking through it for garbage, and more while tracing
with _quiet_start():
    # as if it were not there, since Keras would import it, half a second long, for what no script draws with
    _hidden = sys.modules.setdefault("matplotlib", None) is None
    import tensorflow as tf

    if _hidden:
        del sys.modules["matplotlib"]
    from spvae_tf import files
    from spvae_tf.errors import InputError
    from spvae_tf.ops.runtime import configure, end_softly
    from spvae_tf.training.trainer import NonFiniteError

    configure()
    tf.get_logger().setLevel("ERROR")  # else it warns of models of many sizes in one process
    tf.function(lambda: tf.zeros([]) + 1, jit_compile=True)()  # what the devices print comes out here
gc.freeze()
gc.enable()


def run(main, commands=()):
    """Runs a script's main function.

    Bad input is one line on standard error and exit status 2; a script returns 1 when part of its work failed. Ctrl-C,
    SIGTERM and SIGHUP are one line, too, which ends with the command that goes on, and the status that shells give.

    Args:
      main: function that returns an exit status or None; of the command, where there are commands.
      commands: words of which the command line has to hold one, besides flags.
    """
    def checked(argv):
        words = argv[1:]
        if commands:
            if len(words) != 1 or words[0] not in commands:
                raise InputError(f"{' '.join(words)!r} is no command; it must be one of {', '.join(commands)}")
        elif words:
            raise InputError(f"{words[0]!r} is no flag; see --help")
        return main(*words)

    try:
        end_softly()
        app.run(checked, flags_parser=_parse_flags)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (NonFiniteError, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        print(f"failed: memory is too small: {str(error).partition(chr(10))[0]}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as error:
        number = signal.Signals(*error.args or [signal.SIGINT])
        print(f"interrupted ({number.name}); the same command goes on: {shlex.join(sys.orig_argv)}", file=sys.stderr)
        sys.exit(128 + number)


def _parse_flags(argv):
    # ~ where a shell leaves it, after =, : and ,; no flag's value but a path begins with it
    argv = [re.sub(r"(?<![^=:,])~[^/:,]*", lambda home: files.expand(home[0]), word) for word in argv]
    try:
        remaining = flags.FLAGS(argv)
        if flags.FLAGS["verbosity"].using_default_value:  # absl would make it INFO
            flags.FLAGS.verbosity = logging.WARNING  # not what TensorFlow Datasets reads
        if "config" in flags.FLAGS:
            flags.FLAGS.config.keys()  # a missing file shows only now
        return remaining
    except OSError as error:
        raise InputError(f"--config: there is no such file ({str(error).split('Errno')[-1].split(']')[-1].strip()})"
                         ) from error
    except flags.Error as error:  # a configuration file's own error comes with its traceback; its last line says it
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(lines[-1].removeprefix("spvae_tf.errors.InputError: ")) from error
    except (AttributeError, KeyError) as error:  # ml_collections, of a --config.key
        key = str(error.args[0]).strip("'\"")
        raise InputError(f"--config has no key {key!r}; spvae_tf/training/configuration.py lists them") from error
