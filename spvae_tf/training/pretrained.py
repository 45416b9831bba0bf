"""Trained models to take home: weights/NAME.npz of a clone, numbered in the model's order as in results/.

weights/index.json says of each what it is: its `sha256`, `config` and `image_shape`, and what its card tells.
"""

import hashlib
import json
from pathlib import Path

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.training import checkpoint, configuration
from spvae_tf.training.run import Run, make_model

FOLDER = Path(__file__).parents[2] / "weights"  # of the clone that the package is installed from
INDEX = "index.json"


def pretrained(name, folder=FOLDER):
    """A trained SPVAE, ready for its queries: `spvae_tf.pretrained("spvae-mnist-discrete").sample(16)`.

    Args:
      name: one of those in weights/README.md, "MODEL-DATASET-LIKELIHOOD" in small letters.
      folder: where the weights lie.

    Raises:
      InputError: for an unknown name, which lists the known ones, and for a missing or damaged file.
    """
    return open_run(name, folder=folder).model


def open_run(name, data_dir=None, folder=FOLDER):
    """The Run, without a folder of its own, whose weights those are; raises InputError as `pretrained`."""
    cards = read_index(folder)
    if name not in cards:
        known = ", ".join(sorted(cards)) or f"none: there is no {Path(folder) / INDEX}; clone the repository for them"
        raise InputError(f"there are no weights {name!r}; known are {known}")
    card, path = cards[name], Path(folder) / f"{name}.npz"
    if not path.exists():
        raise InputError(f"there are no weights {path}; clone the repository again, or `git checkout` the file")
    if digest(path) != card["sha256"]:
        raise InputError(f"{path} is damaged: its SHA-256 is {digest(path)}, it must be {card['sha256']}")
    run = Run(configuration.recorded_config(card["config"], data_dir=data_dir), None)
    run.model = with_weights(make_model(run.config, tuple(card["image_shape"])), path)
    return run


def with_weights(model, path):
    """A model, its weights read from a file of results/<protocol>/weights/; raises InputError for another model's."""
    variables = model.trainable_variables
    arrays = files.read_npz(path, [f"{n:03d}" for n in range(len(variables))])
    checkpoint.assign(variables, [array.astype(v.dtype) for array, v in zip(arrays.values(), variables)], path)
    return model


def open_trained(workdir, weights, data_dir=None):
    """The trained Run of a folder or of the name of weights; raises InputError unless exactly one of them is given."""
    if bool(workdir) == bool(weights):
        raise InputError("one of --workdir, the folder of a run, and --weights, a name of weights/README.md, must be "
                         f"given, not {'both' if workdir else 'none'}")
    return open_run(weights, data_dir) if weights else Run.open(workdir, data_dir)


def read_index(folder):
    """name -> card, a dict; empty where there are no weights."""
    path = Path(folder) / INDEX
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def digest(path):
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
