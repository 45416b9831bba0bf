"""One file per run that holds all it takes to go on with it, written to a temporary file and renamed."""

import json
import zipfile

import numpy as np

from spvae_tf import files
from spvae_tf.errors import InputError

CHECKPOINT = "checkpoint.npz"
GROUPS = {"weights", "best", "optimizer"}


def save(path, arrays, state):
    """Saves a checkpoint: arrays, a dict of lists with the keys GROUPS, and a state that JSON can hold."""
    flat = {f"{group}/{n:03d}": array for group, items in arrays.items() for n, array in enumerate(items)}
    files.write_npz(path, np.savez, state=json.dumps(state), **flat)


def restore(path):
    """(arrays, state) of a checkpoint; raises InputError when the file is missing, cut off, or another kind of file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            state = json.loads(str(file["state"]))
            groups = {}
            for name in sorted(set(file.files) - {"state"}):
                groups.setdefault(name.split("/")[0], []).append(file[name])
        if set(groups) != GROUPS or not isinstance(state, dict):
            raise ValueError(f"it holds {', '.join(groups) or 'no arrays'}")
    except FileNotFoundError as error:
        raise InputError(f"there is no checkpoint {path}") from error
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, RuntimeError) as error:
        raise InputError(f"checkpoint {path} is damaged ({error}); delete it to start the run over") from error
    return groups, state


def assign(variables, arrays, path):
    """Assigns arrays to Keras variables, in order; raises InputError when shapes or dtypes differ, and assigns none."""
    found, wanted = [tuple(a.shape) for a in arrays], [tuple(v.shape) for v in variables]
    if found != wanted:
        raise InputError(f"checkpoint {path} belongs to another model: {len(found)} arrays of "
                         f"{sum(map(np.prod, found)):.0f} values, the model has {len(wanted)} of "
                         f"{sum(map(np.prod, wanted)):.0f}")
    for variable, array in zip(variables, arrays):
        if array.dtype != variable.dtype:
            raise InputError(f"checkpoint {path} holds {array.dtype}, the model {variable.dtype}; call "
                             f"keras.config.set_dtype_policy('{array.dtype}') before it is read")
    for variable, array in zip(variables, arrays):
        variable.assign(array)
