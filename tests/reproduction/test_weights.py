"""Weights to take home: what is packed, loads again and is what its card says; the folder of the repository."""

import math

import numpy as np
import pytest
from small_runs import make_dataset

import spvae_tf
from spvae_tf.errors import InputError
from spvae_tf.reproduction import weights
from spvae_tf.training import configuration, pretrained, run
from spvae_tf.training.evaluation import evaluate

pytestmark = pytest.mark.usefixtures("eagerly")
NAME = "vae-mnist_sample-discrete"


@pytest.fixture
def complete(tmp_path, monkeypatch):
    """Makes a tiny run of that cell; returns its record."""
    monkeypatch.setattr(run, "load_data", lambda config: make_dataset())

    def complete(**settings):
        config = configuration.make_config("VAE", "mnist_sample", "discrete")
        config.update(dict(hidden_units=4, latent_dim=2, batch_size=8, validate_every=2, test_samples=12) | settings)
        return run.complete(config, tmp_path / "results")
    return complete


@pytest.fixture
def packed(complete, tmp_path):
    """The folder of weights of two runs, the first of which has the better validation ELBO."""
    good, bad = complete(max_batches=6, learning_rate=0.01), complete(seed=1, max_batches=2)
    assert good["val_ll_k5"] > bad["val_ll_k5"]
    assert weights.pack(tmp_path / "results", tmp_path / "weights") == [NAME]
    return tmp_path / "weights"


def test_the_best_run_is_packed_and_loads_again(packed, tmp_path):
    opened = pretrained.open_run(NAME, folder=packed)
    folder, = (tmp_path / "results" / "paper" / "runs").glob("*seed0")
    for packed_weight, trained in zip(opened.model.trainable_variables, spvae_tf.load(folder).trainable_variables,
                                      strict=True):
        np.testing.assert_array_equal(packed_weight, trained)
    card = pretrained.read_index(packed)[NAME]
    again = evaluate(opened.model, opened.dataset.test[:weights.NUM_IMAGES], weights.NUM_SAMPLES).mean
    assert card["seed"] == 0 and card["quick_test_ll"] == round(again, 2)
    bits = -card["test_ll"] / (144 * math.log(2))
    assert f"| `{NAME}` | {card['test_ll']:.1f} ± " in (page := (packed / "README.md").read_text(encoding="utf-8"))
    assert f" {bits:.3f} | {card['quick_test_ll']:.2f} | paper | 0 | 24 | " in page


def test_a_better_run_takes_the_place_and_nothing_else_is_done_twice(packed, complete, tmp_path, monkeypatch):
    before = (packed / f"{NAME}.npz").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(weights, "_pack", None)
        weights.pack(tmp_path / "results", packed)
    assert (packed / f"{NAME}.npz").stat().st_mtime_ns == before
    complete(seed=2, max_batches=12, learning_rate=0.03)
    weights.pack(tmp_path / "results", packed)
    assert pretrained.read_index(packed)[NAME]["seed"] == 2


def test_what_is_not_whole_is_left_out(complete, tmp_path, monkeypatch):
    complete(train_fraction=0.5, max_batches=2)
    assert weights.pack(tmp_path / "results", tmp_path / "weights") == []
    complete(max_batches=2)
    monkeypatch.setattr(weights, "MAX_BYTES", 100)
    assert weights.pack(tmp_path / "results", tmp_path / "weights") == []


def test_unknown_missing_and_damaged_weights_are_one_line(packed):
    with pytest.raises(InputError, match=f"^there are no weights 'spvae'; known are {NAME}$"):
        spvae_tf.pretrained("spvae", packed)
    with pytest.raises(InputError, match="known are none: there is no .*index.json; clone the repository"):
        spvae_tf.pretrained("spvae", packed / "nowhere")
    file = packed / f"{NAME}.npz"
    sound = file.read_bytes()
    file.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(InputError, match=f"{NAME}.npz is damaged: its SHA-256 is {pretrained.digest(file)}, it must"):
        spvae_tf.pretrained(NAME, packed)
    file.unlink()
    with pytest.raises(InputError, match=f"there are no weights .*{NAME}.npz"):
        spvae_tf.pretrained(NAME, packed)


@pytest.mark.parametrize("workdir, name, given", [("run", "spvae", "both"), (None, None, "none"), ("", "", "none")])
def test_a_folder_or_a_name_is_given(workdir, name, given):
    with pytest.raises(InputError, match=f"one of --workdir.* and --weights.* must be given, not {given}$"):
        pretrained.open_trained(workdir, name)


def test_the_repository_has_small_sound_weights():
    cards = pretrained.read_index(pretrained.FOLDER)
    sizes = {path.stem: path.stat().st_size for path in pretrained.FOLDER.glob("*.npz")}
    assert sizes.keys() == cards.keys()
    assert sum(sizes.values()) <= 40_000_000 and max(sizes.values(), default=0) <= weights.MAX_BYTES
    for name, card in cards.items():
        assert pretrained.digest(pretrained.FOLDER / f"{name}.npz") == card["sha256"]
    if cards:
        page = (pretrained.FOLDER / "README.md").read_text(encoding="utf-8")
        assert page == weights.as_page(cards), "run python scripts/pack_weights.py"
