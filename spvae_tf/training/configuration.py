"""The configuration of a run: cells of Table 1, the two protocols, what is allowed, and the run's name."""

import hashlib
from pathlib import Path

import ml_collections
import numpy as np

from spvae_tf import published as paper
from spvae_tf.errors import InputError
from spvae_tf.model.likelihoods import get_likelihood
from spvae_tf.model.region_graph import RegionGraph
from spvae_tf.spvae import MODELS, canonical_name
from spvae_tf.training.data import DATASETS, dataset_name, fingerprint

# What the text says, and what the code that made the tables does. `patience` is the number of validations in a row
# without a new best that ends a run: a reading of the text's "decreased five times consecutively", and what the code
# counts. `stream` is a function of training.py.
PROTOCOLS = {
    "paper": dict(learning_rate={True: 0.001, False: 0.001}, patience=5, stream="epochs"),
    "released": dict(learning_rate={True: 0.01, False: 0.001}, patience=11, stream="restarted"),
}
STREAMS = ("epochs", "restarted")
# of the images: as the authors prepared them, bit for bit (data.py), or as this repository did before (records alone)
PREPARATIONS = ("authors", "earlier")

# What may change when a training run is continued; all else makes another run.
FREE = ("data_dir", "max_batches", "test_samples", "num_test_images", "preset")


def make_config(model="SPVAE", dataset="mnist", likelihood="continuous", cell_of=None):
    """The configuration of one cell of Table 1, with Table 2's hyper-parameters.

    Args:
      model: one of MODELS, in any capitals.
      dataset: one of data.DATASETS or the path of an .npz.
      likelihood: "continuous" or "discrete".
      cell_of: of an .npz, the data set of paper.DATASETS whose sizes and rounding it takes; None is MNIST's.

    Returns:
      ml_collections.ConfigDict; what is a placeholder follows from the protocol or the data (`resolve`).

    Raises:
      InputError: for a name that does not exist, or cell_of beside a data set that has cells of its own.
    """
    model = canonical_name(model)
    get_likelihood(likelihood)
    check_dataset_name(dataset)
    if cell_of is not None and (cell_of not in paper.DATASETS or dataset in DATASETS):
        raise InputError(f"cell_of is {cell_of!r} for dataset {dataset!r}; it must be one of "
                         f"{', '.join(paper.DATASETS)}, for an .npz")
    cell = paper.cell(model, cell_of or dataset, likelihood) or paper.cell(model, "mnist", likelihood)
    optional = ml_collections.config_dict.placeholder
    config = ml_collections.ConfigDict(dict(
        model=model, dataset=dataset, likelihood=likelihood, protocol="paper", preset="single",
        hidden_units=cell.hidden_units, latent_dim=cell.latent_dim,
        delta=optional(int), graph=optional(str), num_sums=2, num_components=2,
        seed=0, data_seed=0, data_dir=optional(str), train_fraction=1.0, preparation="authors",
        round_pixels=optional(bool),
        batch_size=128, train_samples=5, validate_every=128, max_batches=optional(int),
        learning_rate=optional(float), patience=optional(int), stream=optional(str), shuffle_buffer=1000,
        test_samples=5000, num_test_images=optional(int)))
    if cell_of == "svhn_cropped":
        config.round_pixels = False  # as the authors leave SVHN's
    return config


def check_dataset_name(dataset):
    """Refuses what names no data set.

    Args:
      dataset: a name of data.DATASETS or the path of an .npz.

    Raises:
      InputError: for anything else.
    """
    if dataset not in DATASETS and not str(dataset).endswith(".npz"):
        raise InputError(f"dataset is {dataset!r}; it must be one of {', '.join(DATASETS)} or the path of an .npz")


def resolve(config):
    """Checks a configuration and fills in what its protocol decides.

    Args:
      config: of `make_config`, perhaps with fields set since.

    Returns:
      A copy without placeholders for learning_rate, patience and stream.

    Raises:
      InputError: for a value that is not allowed, naming the key.
    """
    config = config.copy_and_resolve_references()
    config.model = canonical_name(config.model)
    get_likelihood(config.likelihood)
    check_dataset_name(config.dataset)
    if config.protocol not in PROTOCOLS:
        raise InputError(f"protocol is {config.protocol!r}; it must be one of {', '.join(PROTOCOLS)}")
    for name, value in PROTOCOLS[config.protocol].items():
        if config[name] is None:
            config[name] = value[MODELS[config.model][0]] if isinstance(value, dict) else value
    if config.stream not in STREAMS:
        raise InputError(f"stream is {config.stream!r}; it must be one of {', '.join(STREAMS)}")
    if config.preparation not in PREPARATIONS:
        raise InputError(f"preparation is {config.preparation!r}; it must be one of {', '.join(PREPARATIONS)}")
    for name in ("hidden_units", "latent_dim", "num_sums", "num_components", "batch_size", "train_samples",
                 "validate_every", "patience", "shuffle_buffer", "test_samples"):
        if config[name] < 1:
            raise InputError(f"{name} is {config[name]}; it must be at least 1")
    if config.graph is not None:
        if not MODELS[config.model][0] or config.delta is not None:
            raise InputError("graph is for SPVAE and Conv-SPVAE without delta, not for "
                             f"{config.model} with delta={config.delta}")
        if not config.graph.startswith("{"):  # a path; from here on the graph itself travels with the configuration
            config.graph = RegionGraph.load(config.graph).to_json()
    for name in ("delta", "max_batches", "num_test_images"):
        if config[name] is not None and config[name] < 1:
            raise InputError(f"{name} is {config[name]}; it must be at least 1")
    for name in ("seed", "data_seed"):
        if config[name] < 0:
            raise InputError(f"{name} is {config[name]}; it must not be negative")
    if not 0 < config.learning_rate < np.inf:
        raise InputError(f"learning_rate is {config.learning_rate}; it must be positive and finite")
    if not 0 < config.train_fraction <= 1:
        raise InputError(f"train_fraction is {config.train_fraction}; it must be above 0 and at most 1")
    return config


def run_name(config):
    """A name for a run that tells it from every other: its cell, its preset, its sizes, its seed, and all else that
    was set besides.

    Args:
      config: resolved configuration.

    Returns:
      str, usable as a file name.
    """
    dataset = f"npz_{Path(config.dataset).stem}" if str(config.dataset).endswith(".npz") else config.dataset
    return "-".join([config.model, dataset, config.likelihood, config.preset, f"h{config.hidden_units}",
                     f"z{config.latent_dim}", *changes_as_text(config), f"seed{config.seed}"]).lower()


def picture_name(config):
    """A name for pictures of a run: its model, data, protocol and seed, and what else was set.

    Args:
      config: resolved configuration.

    Returns:
      str, usable as a file name.
    """
    plain = make_config(config.model, config.dataset, config.likelihood)
    sizes = [f"{short}{config[key]}" for short, key in (("h", "hidden_units"), ("z", "latent_dim"))
             if config[key] != plain[key]]
    return "_".join([config.model, dataset_name(config.dataset), config.likelihood, config.protocol,
                     *sizes, *changes_as_text(config), f"seed{config.seed}"]).lower()


def changes(config):
    """What was set in a configuration besides its cell, its preset, its sizes and its seed.

    Args:
      config: resolved configuration.

    Returns:
      dict key -> value, without the keys that decide only how far a run is trained and tested.
    """
    plain = make_config(config.model, config.dataset, config.likelihood)
    plain.protocol = config.protocol
    named = ("model", "dataset", "likelihood", "protocol", "hidden_units", "latent_dim", "seed", "preparation", *FREE)
    return {key: config[key] for key, value in resolve(plain).items() if key not in named and config[key] != value}


def changes_as_text(config):
    """What `changes` finds, for names.

    Args:
      config: resolved configuration.

    Returns:
      list of str "key=value", usable in file names; of a region graph a hash.
    """
    def short(value):
        return hashlib.sha256(value.encode()).hexdigest()[:8] if str(value).startswith("{") else value

    return [f"{key}={short(value)}" for key, value in changes(config).items()]


def as_recorded(config):
    """A configuration as records keep it, without the places of files on a machine.

    Args:
      config: resolved configuration.

    Returns:
      dict; of a user's own images it names the file, not the folder, and has what `content` says.

    Raises:
      InputError: when a user's own images cannot be read.
    """
    kept = {key: value for key, value in config.items() if key != "data_dir"}
    return kept | {"dataset": Path(config.dataset).name} | content(config)


def content(config):
    """What tells the images of a configuration from others of the same name.

    Args:
      config: configuration.

    Returns:
      dict: `dataset_sha256` of a user's own images where their file is at hand, else empty.

    Raises:
      InputError: when a user's own images cannot be read.
    """
    digest = fingerprint(config.dataset)
    return {} if digest is None else {"dataset_sha256": digest}


def recorded_config(record):
    """The configuration of a record; a key younger than the record has its default, and old images are "earlier" ones.

    Args:
      record: dict with the key `config`.

    Returns:
      ml_collections.ConfigDict; of a user's own images it names the file, not the folder.
    """
    return ml_collections.ConfigDict(as_recorded(make_config()) | {"preparation": "earlier"} | record["config"])
