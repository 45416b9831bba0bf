"""Figure 3: the grid of quantiles, every leaf VAE's pictures, the preferences of classes, the command line."""

import csv
import types

import command_line
import numpy as np
import pytest
import tensorflow as tf

from spvae_tf import build_model
from spvae_tf.errors import InputError
from spvae_tf.reproduction import figure3
from spvae_tf.reproduction.pictures import boxes_of
from spvae_tf.training import data
from spvae_tf.training.run import Run

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module")
def model():
    """Super-pixels of 3×4, 3×2, 2×4 and 2×2 pixels, with two-dimensional codes."""
    return build_model("SPVAE", (5, 6), "continuous", hidden_units=3, latent_dim=2, delta=4, seed=1)


def test_quantiles_are_equally_probable():
    """Φ of the points is the even grid; the first coordinate grows to the right, the second upwards."""
    points = figure3.latent_quantiles(4).reshape(4, 4, 2)
    assert points.dtype == np.float32
    levels = tf.math.erfc(-points / np.sqrt(2)).numpy() / 2
    even = np.array([0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(levels[..., 0], np.tile(even, (4, 1)), atol=1e-6)
    np.testing.assert_allclose(levels[..., 1], np.tile(even[::-1, None], (1, 4)), atol=1e-6)


def test_every_picture_is_its_own_vaes_mean_at_its_own_code(model):
    boxes = boxes_of(model.graph.leaf_regions, model.image_shape[1])
    pictures = figure3.manifolds(model, boxes, steps=3)
    assert boxes == [(0, 0, 4, 4), (0, 4, 4, 2), (4, 0, 1, 4), (4, 4, 1, 2)]
    codes = figure3.latent_quantiles(3)
    for leaf, (images, (top, left, height, width)) in enumerate(zip(pictures, boxes)):
        assert images.shape == (2, 9, height, width)
        for component in range(2):
            for place in (0, 2, 4, 7):
                z = np.zeros([8, 1, 1, 2], np.float32)
                z[2 * leaf + component] = codes[place]
                mean = tf.sigmoid(model.decode(tf.constant(z))[0])[2 * leaf + component, 0, 0].numpy()
                canvas = np.zeros(30)  # pixel by pixel, by the region's own scope
                canvas[list(model.graph.leaf_regions[leaf].scope)] = mean[:height * width]
                expected = canvas.reshape(5, 6)[top:top + height, left:left + width]
                np.testing.assert_allclose(images[component, place], expected, rtol=1e-5)


def test_preferences_are_the_classes_means():
    leaves = np.random.default_rng(0).dirichlet([1, 1], size=(6, 4)).astype(np.float32)
    labels = np.array([7, 3, 7, 3, 3, 7])
    stub = types.SimpleNamespace(
        posterior=lambda images, num_samples, seed: types.SimpleNamespace(leaves=tf.constant(leaves)))
    found = figure3.preferences(stub, None, labels)
    assert list(found) == [3, 7]
    np.testing.assert_allclose(found[7], (leaves[0] + leaves[2] + leaves[5]) / 3, rtol=1e-6)


def dataset(labels):
    images = np.random.default_rng(0).random((4, 30), np.float32)
    return data.Dataset("mine", (5, 6), images, images, images, labels, labels, labels)


def test_csv_has_a_row_for_each_class_and_super_pixel(model, tmp_path, monkeypatch):
    values = {4: np.array([[0.25, 0.75], [1, 0], [0, 1], [0.5, 0.5]]), 9: np.full([4, 2], 0.5)}
    monkeypatch.setattr(figure3, "preferences", lambda *_: values)
    figure3.draw(model, dataset(np.array([4, 9, 9, 9])), 2, tmp_path / "t.csv", tmp_path / "p.png")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "label,num_images,row,column,left,right"
    assert lines[1:5] == ["4,1,0,0,0.25,0.75", "4,1,0,1,1.0,0.0", "4,1,1,0,0.0,1.0", "4,1,1,1,0.5,0.5"]
    assert len(lines) == 9 and lines[5].startswith("9,3,0,0,")


@pytest.mark.parametrize("settings, message", [
    (dict(latent_dim=3), "latent_dim is 3; a picture of the latent space needs 2"),
    (dict(latent_dim=2, num_components=3), "num_components is 3")])
def test_models_that_cannot_be_drawn_are_errors(settings, message, tmp_path):
    other = build_model("SPVAE", (5, 6), "continuous", hidden_units=3, delta=4, **settings)
    with pytest.raises(InputError, match=message):
        figure3.draw(other, dataset(np.arange(4)), 2, tmp_path / "t.csv", tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


def test_command_line_trains_and_draws(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"x_{split}": rng.integers(0, 256, [n, 8, 8], np.uint8)
              for split, n in (("train", 40), ("validation", 10), ("test", 120))}
    np.savez(tmp_path / "mine.npz", **arrays, y_test=np.arange(120) % 3)

    def run(*flags, expect=0):
        done = command_line.run("latent_space.py", *flags)
        assert done.returncode == expect, done.stderr
        return done

    results = tmp_path / "results"
    run("--preset=mini", f"--dataset={tmp_path / 'mine.npz'}", "--max_batches=2", "--steps=3",
        f"--results_dir={results}")
    with open(results / "paper" / "latent_space_spvae_mine_continuous_paper_z2_seed0.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 16 and all(abs(float(r["left"]) + float(r["right"]) - 1) < 2e-4 for r in rows)
    workdir, = (results / "paper" / "runs").iterdir()
    assert Run.open(workdir).config.latent_dim == 2
    picture = results / "figures" / "latent_space_spvae_mine_continuous_paper_z2_seed0.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    np.savez(tmp_path / "unlabelled.npz", **arrays)
    refused = run("--preset=mini", f"--dataset={tmp_path / 'unlabelled.npz'}", f"--results_dir={tmp_path / 'new'}",
                  expect=2)
    assert "unlabelled has no labels" in refused.stderr and not (tmp_path / "new").exists()
    refused = run(f"--workdir={tmp_path}", f"--results_dir={tmp_path / 'new'}", expect=2).stderr
    assert "holds no run" in refused and len(refused.strip().splitlines()) == 1 and not (tmp_path / "new").exists()
