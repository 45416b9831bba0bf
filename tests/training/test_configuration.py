"""Configurations: the two protocols, sizes, what is allowed, and names of runs."""

import itertools
import json
import math
from pathlib import Path

import pytest

from spvae_tf import published
from spvae_tf.errors import InputError
from spvae_tf.model.likelihoods import LIKELIHOODS
from spvae_tf.spvae import MODELS
from spvae_tf.training import configuration


@pytest.mark.parametrize("model, protocol, learning_rate, patience, stream", [
    ("SPVAE", "released", 0.01, 11, "restarted"), ("Conv-SPVAE", "released", 0.01, 11, "restarted"),
    ("VAE", "released", 0.001, 11, "restarted"), ("Conv-VAE", "released", 0.001, 11, "restarted"),
    ("SPVAE", "paper", 0.001, 5, "epochs"), ("Conv-SPVAE", "paper", 0.001, 5, "epochs"),
    ("VAE", "paper", 0.001, 5, "epochs"), ("Conv-VAE", "paper", 0.001, 5, "epochs")])
def test_protocols(model, protocol, learning_rate, patience, stream):
    config = configuration.make_config(model)
    config.protocol = protocol
    resolved = configuration.resolve(config)
    assert (resolved.learning_rate, resolved.patience, resolved.stream) == (learning_rate, patience, stream)
    assert config.learning_rate is None  # a copy
    assert configuration.resolve(resolved) == resolved
    for key, value in (("learning_rate", 0.5), ("patience", 3), ("stream", "epochs"), ("stream", "restarted")):
        switched = config.copy_and_resolve_references()
        switched[key] = value
        expected = configuration.settings_of(resolved) | {key: value}
        assert configuration.settings_of(configuration.resolve(switched)) == expected


def test_settings_common_to_both_protocols():
    """Section 4: batches of 128, k = 5 in training, validation every 128 batches, k = 5,000 in the test."""
    config = configuration.make_config()
    assert (config.batch_size, config.train_samples, config.validate_every, config.test_samples) == (128, 5, 128, 5000)
    assert (config.num_sums, config.num_components, config.shuffle_buffer, config.train_fraction) == (2, 2, 1000, 1)
    assert config.protocol == "paper" and config.max_batches is None and config.num_test_images is None


@pytest.mark.parametrize("name, model", [("spvae", "SPVAE"), ("conv-vae", "Conv-VAE"), ("CONV-SPVAE", "Conv-SPVAE")])
def test_sizes_follow_table_2(name, model):
    for dataset, likelihood in itertools.product(published.DATASETS, ("continuous", "discrete")):
        config, cell = configuration.make_config(name, dataset, likelihood), published.CELLS[model, dataset, likelihood]
        assert (config.model, config.hidden_units, config.latent_dim) == (model, cell.hidden_units, cell.latent_dim)


@pytest.mark.parametrize("likelihood", sorted(set(LIKELIHOODS) - set(published.LIKELIHOODS)))
def test_a_likelihood_without_published_cells_has_the_sizes_of_the_discrete(likelihood):
    for dataset, of in (("cifar10", "cifar10"), ("mine.npz", "mnist")):
        cell, config = published.CELLS["VAE", of, "discrete"], configuration.make_config("VAE", dataset, likelihood)
        assert (config.hidden_units, config.latent_dim) == (cell.hidden_units, cell.latent_dim)
    config = configuration.make_config("VAE", "cifar10", likelihood)
    config.num_categories = 16
    assert configuration.resolve(config).name == f"vae-cifar10-{likelihood}-single-h600-z200-num_categories=16-seed0"


@pytest.mark.parametrize("dataset, cell_of", [("mnist", "svhn_cropped"), ("mnist_sample", "mnist"),
                                              ("mine.npz", "mnist_sample"), ("mine.npz", "other.npz")])
def test_cell_of_is_for_own_images(dataset, cell_of):
    with pytest.raises(InputError, match=f"^cell_of is '{cell_of}' for dataset '{dataset}'"):
        configuration.make_config("VAE", dataset, cell_of=cell_of)


BAD_VALUES = ([(key, value) for value in (0, -1) for key in (
    "hidden_units", "latent_dim", "num_sums", "num_components", "batch_size", "train_samples", "validate_every",
    "patience", "shuffle_buffer", "test_samples", "delta", "max_batches", "num_test_images")]
    + [(key, -1) for key in ("seed", "data_seed")]
    + [("learning_rate", value) for value in (0.0, -0.1, math.nan, math.inf)]
    + [("train_fraction", value) for value in (0.0, -0.5, 1.5, math.nan)]
    + [("model", "GAN"), ("dataset", "imagenet"), ("likelihood", "poisson"), ("protocol", "mine"), ("stream", "river")])


@pytest.mark.parametrize("key, value", BAD_VALUES)
def test_bad_value_is_refused_by_name(key, value):
    config = configuration.make_config()
    config[key] = value
    with pytest.raises(InputError, match=f"^{key} is {value!r}[,;:]") as error:
        configuration.resolve(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arguments, key", [(("GAN",), "model"), (("VAE", "imagenet"), "dataset"),
                                            (("VAE", "mnist", "poisson"), "likelihood")])
def test_unknown_names_are_refused(arguments, key):
    with pytest.raises(InputError, match=f"^{key} is {arguments[-1]!r}"):
        configuration.make_config(*arguments)


def test_picture_names_tell_runs_apart():
    def name(**overrides):
        config = configuration.make_config("SPVAE", "mnist", "discrete")
        config.update(overrides)
        return configuration.picture_name(configuration.resolve(config))
    assert name() == "spvae_mnist_discrete_paper_seed0"
    assert name(latent_dim=2) == "spvae_mnist_discrete_paper_z2_seed0"
    assert name(hidden_units=8, train_fraction=0.1, seed=3) == "spvae_mnist_discrete_paper_h8_train_fraction=0.1_seed3"
    assert name(learning_rate=0.5, patience=60) == "spvae_mnist_discrete_paper_learning_rate=0.5_patience=60_seed0"


def test_run_names_tell_runs_apart():
    choices = dict(
        model=MODELS, dataset=("mnist", "mnist_sample", "svhn_cropped", "data/faces.npz"),
        likelihood=("continuous", "discrete"), preset=("mini", "tuned"), hidden_units=(3, 30), latent_dim=(1, 5, 50),
        train_fraction=(1.0, 0.1, 0.01, 0.013), seed=(0, 1, 10))
    names = [configuration.resolve(configuration.make_config(), **dict(zip(choices, values))).name
             for values in itertools.product(*choices.values())]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and not set(name) & set("/\\ :*?\"<>|") for name in names)


def test_raw_runs_have_names_of_their_own():
    config = configuration.make_config("SPVAE", "mnist", "discrete")
    names = {key: configuration.resolve(config, preparation=key).name for key in ("authors", "earlier", "raw")}
    assert names["authors"] == names["earlier"] == "spvae-mnist-discrete-single-h30-z25-seed0"
    assert names["raw"] == "spvae-mnist-discrete-single-h30-z25-preparation=raw-seed0"
    assert "preparation=raw" in configuration.picture_name(configuration.resolve(config, preparation="raw"))
    with pytest.raises(InputError, match="^preparation is 'mine'; it must be one of authors, raw"):
        configuration.resolve(config, preparation="mine")


def test_committed_runs_keep_their_names():
    paths = sorted((Path(__file__).parents[2] / "results").glob("*/records/*.json"))
    assert len(paths) > 50
    for path in paths:
        record = json.loads(path.read_text())
        config = configuration.recorded_config(record["config"])
        assert path.stem.startswith(config.name), path
        assert configuration.as_recorded(config).items() >= record["config"].items(), path
