"""Files that are whole or absent: text, CSV and NPZ; and folders that are one process's at a time."""

import contextlib
import csv
import glob
import io
import os
import re
import shutil
from pathlib import Path

import filelock
import numpy as np

from spvae_tf.errors import InputError

# columns of every table that are text even where they look like a number, as a commit may
TEXT_COLUMNS = ("model", "dataset", "likelihood", "protocol", "preset", "device", "versions", "commit")


LOCK_SECONDS = 60  # a table is written in less


def expand(path):
    """A path, as str, with the home folder for a leading ~; raises InputError where there is no such user."""
    expanded = str(os.path.expanduser(path))
    if expanded.startswith("~"):
        raise InputError(f"{path}: {Path(path).parts[0]} is no user's home folder; ./{path} is a file of that name")
    return expanded


def write_atomically(path, write):
    """Calls `write(temporary path)` and renames the result to `path`; raises InputError when that cannot be written.

    What is written may be a file or a folder.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent, path.name)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {_reason(error)}") from error
    finally:
        _remove(temporary)


def _reason(error):
    """Why a file cannot be written."""
    if isinstance(error, FileExistsError):
        return "where its folder should be lies a file or a link that leads nowhere"
    return error.strerror or error


def _remove_leftovers(folder, name=None):
    """Removes temporary files, of one file or of all in the folder, whose process was killed."""
    for path in folder.glob(f".{'*' if name is None else glob.escape(name)}.*.tmp"):
        owner = re.search(r"\.(\d+)\.tmp$", path.name)
        if owner and not _is_another_process(int(owner[1])):
            _remove(path)


def _is_another_process(pid):
    if os.name == "nt":  # where os.kill sends Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid != os.getpid()  # what an earlier process of this number has left, as in a container started again


def _remove(path):
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_text(path, text):
    """Writes a text file atomically, in UTF-8; names of files that are not UTF-8 keep their bytes."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="surrogateescape"))


@contextlib.contextmanager
def lock(folder, wait=False):
    """Makes a folder and keeps other processes out of it while this one is at work.

    What processes that were killed have left half-written in the folder is removed. Raises InputError when another
    process has it, after LOCK_SECONDS if it shall `wait`, or when the folder cannot be written.
    """
    folder = Path(folder)
    held = filelock.FileLock(folder / ".lock", timeout=LOCK_SECONDS if wait else 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except filelock.Timeout as error:
        raise InputError(f"another process is at work in {folder}; wait for it, or choose another folder"
                         f"{_holder(folder / '.lock')}") from error
    except OSError as error:
        raise InputError(f"cannot write {folder}/.lock: {_reason(error)}") from error
    try:
        _remove_leftovers(folder)
        yield
    finally:
        held.release()


def _holder(path):
    """What a lock file says of its process, where the file system has no locks and the file may outlive the process."""
    try:
        pid, host = path.read_text().split()[:2]
    except (OSError, ValueError):
        return ""
    return f"; its lock is of process {pid} on {host}: if that has ended, delete {path}"


def write_table(path, rows, columns):
    """Writes dicts as CSV, atomically; keys that are no columns are left out."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_table(path):
    """A CSV of `write_table` as dicts, empty fields as None; raises InputError when it is missing or damaged."""
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
        if "\0" in text:
            raise ValueError("it holds binary data")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except FileNotFoundError as error:
        raise InputError(f"there is no table {path}") from error
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error})") from error
    if any(None in row or None in row.values() for row in rows):
        raise InputError(f"{path} is damaged (a row has more or fewer fields than the head)")
    return [{column: text or None if column in TEXT_COLUMNS else _value(text) for column, text in row.items()}
            for row in rows]


def _value(text):
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text or None


def write_npz(path, savez=np.savez_compressed, **arrays):
    """Writes named arrays as a .npz, atomically; np.savez does not compress them."""
    def write(temporary):
        with open(temporary, "wb") as file:
            savez(file, **arrays)

    write_atomically(path, write)


def check_file(path):
    """Raises InputError for what is there but is no file, as a folder, or a pipe, which would be waited for."""
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path}: not a readable .npz file (it is a folder, a pipe or a device)")


def read_npz(path, required, optional=()):
    """Dict name -> array of a .npz file; raises InputError when it is damaged or a required array is missing."""
    check_file(path)
    try:
        archive = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except Exception as error:  # a file of another kind fails in as many ways as there are file formats
        raise InputError(f"{path}: not a readable .npz file ({' '.join(str(error).split())})") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f"{path}: a single array, not a .npz file with {', '.join(required)}")
    with archive:
        for key in required:
            if key not in archive:
                raise InputError(f"{path}: array {key!r} is missing; the file has {sorted(archive.files)}")
        return {key: _read_array(archive, key, path) for key in (*required, *optional) if key in archive}


def _read_array(archive, key, path):
    try:
        array = archive[key]
    except Exception as error:  # truncated, of a wrong checksum, or a pickled object
        raise InputError(f"{path}: array {key!r} cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: array {key!r} cannot be read (not in NumPy's format)")
    return array
