"""The test of a model: every image counts, and a test that was stopped goes on."""

import math
import statistics

import numpy as np
import pytest
import tensorflow as tf

from spvae_tf import build_model
from spvae_tf.training import evaluation
from spvae_tf.training.evaluation import evaluate
from spvae_tf.training.trainer import NonFiniteError


def test_evaluation_counts_every_image():
    class Model:
        def estimate(self, images, num_samples, seed, refinements, progress, skip):
            progress(len(images), images[:, 0])
            return tf.constant(images[:, 0] + num_samples), None
    images = np.array([[-1.0], [3.0], [4.0]], np.float32)
    result = evaluate(Model(), images, 5)
    assert result.mean == pytest.approx(7) and result.num_samples == 5 and len(result.log_prob) == 3
    assert result.stderr == pytest.approx(statistics.stdev([-1, 3, 4]) / math.sqrt(3))
    np.testing.assert_allclose(result.log_prob, [4, 8, 9])
    assert math.isnan(evaluate(Model(), images[:1], 5).stderr)
    for wrong in (math.nan, -math.inf):
        images[1] = wrong
        with pytest.raises(NonFiniteError, match=f"^the bound of test image 1 is {wrong} .k = 5.$"):
            evaluate(Model(), images, 5)


def test_only_counts_have_bits_per_dimension():
    counts, density = (build_model("VAE", (4, 4), likelihood, 3, 2) for likelihood in ("logistic", "continuous"))
    assert evaluation.in_words(counts, -32 * math.log(2), math.log(2)) == (
        "-22.18 ± 0.69 nats per image, 2.0000 ± 0.0625 bits per dimension")
    assert evaluation.in_words(density, -12.5) == "-12.50 nats per image, a density"
    assert evaluation.uniform_in_words(density) == [] and evaluation.uniform_in_words(counts) == [
        "the uniform distribution: -88.72 nats per image, 8.0000 bits per dimension"]


def test_stopped_test_goes_on_with_the_same_noise(tmp_path, monkeypatch):
    """The first images are saved at once, and all that are done when the test is interrupted."""
    model, calls = build_model("VAE", (4, 4), "discrete", 3, 2, seed=1), []
    images = np.float32(np.random.default_rng(0).integers(0, 256, [230, 16]) / 255)
    whole = evaluate(model, images, 7)
    write, estimate = evaluation.files.write_npz, model.estimate

    def count(path, **arrays):
        calls.append(len(arrays["log_prob"]))
        write(path, **arrays)

    def interrupted(*arguments, progress, **options):
        def stop_at_second(count, values):
            progress(count, values)
            if count == 200:
                raise KeyboardInterrupt
        return estimate(*arguments, progress=stop_at_second, **options)

    monkeypatch.setattr(evaluation.files, "write_npz", count)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(model, "estimate", interrupted)
        evaluate(model, images, 7, folder=tmp_path)
    resumed = evaluate(model, images, 7, folder=tmp_path)
    assert calls == [100, 200, 230, 230]  # the images that were done are not done again
    np.testing.assert_array_equal(resumed.log_prob, whole.log_prob)
    assert resumed.mean == whole.mean
    again = evaluate(model, images, 7, folder=tmp_path)  # all are done
    np.testing.assert_array_equal(again.log_prob, whole.log_prob)


@pytest.mark.parametrize("other", ["model", "images"])
def test_values_of_another_test_are_not_taken(tmp_path, other):
    model = build_model("VAE", (4, 4), "discrete", 3, 2, seed=1)
    images = np.float32(np.random.default_rng(0).integers(0, 256, [9, 16]) / 255)
    evaluate(model, images, 7, folder=tmp_path)
    if other == "model":
        model = build_model("VAE", (4, 4), "discrete", 3, 2, seed=2)
    else:
        images = images[::-1].copy()
    np.testing.assert_array_equal(evaluate(model, images, 7, folder=tmp_path).log_prob,
                                  evaluate(model, images, 7).log_prob)
