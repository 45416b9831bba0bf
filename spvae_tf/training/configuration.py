"""The configuration of a run: its settings, the two protocols, and the run's name.

`make_config` gives the settings of a cell of Table 1, in which anything may be set; `resolve` checks and freezes them.
A `config` elsewhere in this module is resolved. H and n_z of every cell: paper_data/tables_1_and_2.csv.
"""

import hashlib
import math
import os
from pathlib import Path

import ml_collections

from spvae_tf import files, published
from spvae_tf.errors import InputError, check_choice, check_integer
from spvae_tf.model.likelihoods import get_likelihood
from spvae_tf.model.region_graph import RegionGraph
from spvae_tf.spvae import MODELS, canonical_name
from spvae_tf.training.data import DATASETS, PREPARATIONS, check_name, dataset_name, fingerprint

# PAPER: the paper's text (section 4); RELEASED: the code that made the authors' tables. `patience` validations in a row
# without a new best end a run, a reading of "decreased five times consecutively"; `stream` is a function of streams.py.
PAPER = dict(learning_rate_spvae=0.001, learning_rate_vae=0.001, patience=5, stream="epochs")
RELEASED = dict(learning_rate_spvae=0.01, learning_rate_vae=0.001, patience=11, stream="restarted")
PROTOCOLS = {"paper": PAPER, "released": RELEASED}
STREAMS = ("epochs", "restarted")
EARLIER = "earlier"  # the preparation of records without the key: as this repository did before

# a type marks an optional setting, None by default
SETTINGS = dict(
    protocol="paper", preset="single",
    delta=int,  # None: the longer side is divided into four super-pixels
    graph=str,  # JSON, or the path of a file of it; None: Poon and Domingos'
    allow_large_graph=False,  # of more than region_graph.LARGE regions
    num_sums=2, num_components=2,
    num_categories=8,  # J, of the likelihood "tied_mixture"
    seed=0, data_seed=0, data_dir=str, train_fraction=1.0,
    preparation="authors",  # or "raw": pixel / 255, nothing else
    round_pixels=bool,  # None: as the authors do, all data sets but SVHN; none of raw images
    batch_size=128, train_samples=5, validate_every=128,
    max_batches=int,  # None: early stopping ends the run
    learning_rate=float, patience=int, stream=str,  # None: the protocol's
    shuffle_buffer=1000,
    test_samples=5000, num_test_images=int)

# what may change when a run is continued; all else makes another run
MAY_CHANGE = ("name", "preset", "data_dir", "allow_large_graph", "max_batches", "test_samples", "num_test_images")


def make_config(model="SPVAE", dataset="mnist", likelihood="continuous", cell_of=None):
    """The ConfigDict of one cell of Table 1, with Table 2's sizes; raises InputError for names that do not exist.

    Args:
      model: one of MODELS, in any capitals.
      dataset: one of data.DATASETS or the path of an .npz.
      likelihood: one of likelihoods.LIKELIHOODS. One without published sizes has those of the discrete.
      cell_of: of an .npz alone, the data set of published.DATASETS whose sizes and rounding it takes; None is MNIST's.
    """
    model = canonical_name(model)
    get_likelihood(likelihood)
    check_name(dataset)
    if cell_of is not None and (cell_of not in published.DATASETS or dataset in DATASETS):
        raise InputError(f"cell_of is {cell_of!r} for dataset {dataset!r}; it must be one of "
                         f"{', '.join(published.DATASETS)}, for an .npz")
    of_cell = likelihood if likelihood in published.LIKELIHOODS else "discrete"
    candidates = (cell_of or dataset, of_cell), ("mnist", of_cell)
    cell = next(filter(None, (published.cell(model, *candidate) for candidate in candidates)))
    settings = {key: ml_collections.config_dict.placeholder(value) if isinstance(value, type) else value
                for key, value in SETTINGS.items()}
    config = ml_collections.ConfigDict(settings | dict(
        model=model, dataset=dataset, likelihood=likelihood, hidden_units=cell.hidden_units,
        latent_dim=cell.latent_dim))
    if cell_of == "svhn_cropped":
        config.round_pixels = False  # as the authors leave SVHN's
    return config


def resolve(config, **changes):
    """Checks a configuration with `changes`, fills in what its protocol decides, and names its run.

    Returns a FrozenConfigDict, a region graph in it as JSON. Its `name`, as of a file, tells the run from every other.
    Raises InputError, naming the key, for a value that is not allowed.
    """
    config = ml_collections.ConfigDict({key: value for key, value in config.items() if key != "name"} | changes)
    config.model = canonical_name(config.model)
    get_likelihood(config.likelihood)
    check_name(config.dataset)
    config.dataset = files.expand(config.dataset)
    check_choice("protocol", config.protocol, PROTOCOLS)
    _fill_in_protocol(config)
    _check_values(config)
    if config.graph is not None and not config.graph.startswith("{"):
        config.graph = RegionGraph.load(config.graph).to_json()
    dataset = f"npz_{Path(config.dataset).stem}" if str(config.dataset).endswith(".npz") else config.dataset
    config.name = "-".join([config.model, dataset, config.likelihood, config.preset, f"h{config.hidden_units}",
                            f"z{config.latent_dim}", *changes_as_text(config), f"seed{config.seed}"]).lower()
    return ml_collections.FrozenConfigDict(config)


def has_spn(model):
    """Whether a model is a hierarchy of VAEs: SPVAE and Conv-SPVAE are."""
    return MODELS[model][0]


def _fill_in_protocol(config):
    protocol = PROTOCOLS[config.protocol]
    of_model = "learning_rate_spvae" if has_spn(config.model) else "learning_rate_vae"
    for key, source in (("learning_rate", of_model), ("patience", "patience"), ("stream", "stream")):
        if config[key] is None:
            config[key] = protocol[source]


def _check_values(config):
    check_choice("stream", config.stream, STREAMS)
    check_choice("preparation", config.preparation, (*PREPARATIONS, EARLIER))
    for key in ("hidden_units", "latent_dim", "num_sums", "num_components", "num_categories", "batch_size",
                "train_samples", "validate_every", "patience", "shuffle_buffer", "test_samples", "delta", "max_batches",
                "num_test_images", "seed", "data_seed"):
        if config[key] is not None or not isinstance(SETTINGS.get(key), type):
            check_integer(key, config[key], low=0 if key.endswith("seed") else 1)
    if config.graph is not None and (not has_spn(config.model) or config.delta is not None):
        raise InputError(f"graph is for SPVAE and Conv-SPVAE without delta, not for {config.model} with "
                         f"delta={config.delta}")
    if not 0 < config.learning_rate < math.inf:
        raise InputError(f"learning_rate is {config.learning_rate}; it must be positive and finite")
    if not 0 < config.train_fraction <= 1:
        raise InputError(f"train_fraction is {config.train_fraction}; it must be above 0 and at most 1")


def picture_name(config):
    """A name for pictures of a run, as a file name: its model, data, protocol, seed, and what else was set."""
    plain = make_config(config.model, config.dataset, config.likelihood)
    sizes = [f"{short}{config[key]}" for short, key in (("h", "hidden_units"), ("z", "latent_dim"))
             if config[key] != plain[key]]
    return "_".join([config.model, dataset_name(config.dataset), config.likelihood, config.protocol,
                     *sizes, *changes_as_text(config), f"seed{config.seed}"]).lower()


def changes(config):
    """What was set besides the cell, the sizes, the seed and MAY_CHANGE; a dict."""
    plain = make_config(config.model, config.dataset, config.likelihood)
    plain.protocol = config.protocol
    if config.preparation == EARLIER:
        plain.preparation = EARLIER  # records of it have the names of what they were: the only preparation
    _fill_in_protocol(plain)
    named = ("model", "dataset", "likelihood", "protocol", "hidden_units", "latent_dim", "seed", *MAY_CHANGE)
    return {key: config[key] for key, value in plain.items() if key not in named and config[key] != value}


def changes_as_text(config):
    """`changes` as a list of "key=value", usable in file names; of a region graph a hash."""
    found = changes(config)
    if "graph" in found:
        found["graph"] = hashlib.sha256(found["graph"].encode()).hexdigest()[:8]
    return [f"{key}={value}" for key, value in found.items()]


def settings_of(config):
    """A resolved configuration as a dict, without its name; of a user's own images it has `dataset_sha256`, too."""
    settings, digest = config.to_dict(), fingerprint(config.dataset)
    del settings["name"]
    return settings if digest is None else settings | {"dataset_sha256": digest}


def with_defaults(recorded):
    """A recorded configuration; settings added after the run was made take their defaults; a dict."""
    return make_config().to_dict() | {"preparation": EARLIER} | recorded


def as_recorded(config):
    """`settings_of` as a record has it, without places of files on a machine."""
    name = os.fsencode(Path(config.dataset).name).decode("utf-8", "surrogateescape")  # alike in every locale
    settings = settings_of(config) | {"dataset": name}
    del settings["data_dir"]
    return settings


def recorded_config(recorded, **changes):
    """The configuration of a record or config.json, with `changes`, resolved; raises InputError as `resolve`."""
    settings = with_defaults(recorded)
    return resolve({key: settings[key] for key in make_config()}, **changes)
