"""The likelihoods beside the paper's: probabilities of the 256 counts, against TensorFlow Probability in float64."""

import math

import numpy as np
import pytest
import tensorflow as tf
from test_experts import assert_same_bound_and_gradients, images, models

from spvae_tf.errors import InputError
from spvae_tf.model import likelihoods
from spvae_tf.model.likelihoods import LEVELS, LIKELIHOODS, make_likelihood
from spvae_tf.model.reference import PlainSPVAE
from spvae_tf.model.region_graph import poon_domingos
from spvae_tf.spvae import SPVAE, build_model
from spvae_tf.training.data import SPLITS, load_dataset

NAMES = ["tied_mixture", "logistic", "logistic_mixture", "beta_binomial", "categorical"]
COUNTS = np.arange(LEVELS)[:, None, None]  # [counts, 1, 1], beside outputs [1, rows, width]
SATURATED = [-1e4, -1e3, -88.8, 0, 88.8, 1e3, 1e4]


def make(name, learned=False):
    """A likelihood; a `learned` table is far from its first values."""
    likelihood = make_likelihood(name, 8)
    if learned and name == "tied_mixture":
        likelihood.table.assign(30 * np.random.default_rng(3).standard_normal(likelihood.table.shape))
    return likelihood


def outputs_of(likelihood, dtype):
    """Random outputs for one pixel of many images, saturated ones among them: [1, rows, width]."""
    rng, shape = np.random.default_rng(0), (likelihood.num_outputs, 60, likelihood.width)
    outputs = rng.standard_normal(shape) * np.repeat([1, 8, 1000], 20)[:, None]
    ends = np.multiply.outer(np.ones(likelihood.num_outputs), np.repeat([SATURATED], likelihood.width, 0).T)
    return [tf.constant(part[None], dtype) for part in np.concatenate([outputs, ends], 1)]


def log_probs(likelihood, outputs):
    """log p of every count, [counts, rows]."""
    x = tf.constant(COUNTS / 255, outputs[0].dtype)
    return (likelihood.log_base(x) + likelihood.log_density(x, outputs))[:, :, 0]


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_probabilities_of_the_counts_sum_to_one(name, learned):
    likelihood = make(name, learned)
    values = log_probs(likelihood, outputs_of(likelihood, tf.float32)).numpy()
    assert np.isfinite(values).all()
    np.testing.assert_allclose(np.exp(values.astype(np.float64)).sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_those_of_tensorflow_probability(name):
    likelihood = make(name, learned=True)
    single = outputs_of(likelihood, tf.float32)
    outputs = [tf.cast(output, tf.float64) for output in single]
    ours, theirs = log_probs(likelihood, outputs), likelihood.distribution(outputs).log_prob(np.float64(COUNTS))[..., 0]
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-7)  # the table is float32
    np.testing.assert_allclose(log_probs(likelihood, single), theirs, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_and_right(name):
    """At 0, 255 and in between, under saturated outputs; where these are not saturated they are finite differences."""
    likelihood = make(name)
    outputs = outputs_of(likelihood, tf.float32)
    for count in (0, 100, 255):
        x = tf.constant([[[count / 255]]], tf.float32)
        variables = getattr(likelihood, "trainable_variables", [])
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            value = likelihood.log_density(x, outputs)
        gradients = tape.gradient(value, [*outputs, *(v.value for v in variables)])
        assert all(np.isfinite(tf.convert_to_tensor(gradient)).all() for gradient in gradients)

        few = [tf.cast(output[:, :20], tf.float64) for output in outputs]
        step = [1e-5 * np.random.default_rng(4).standard_normal(output.shape) for output in few]
        x = tf.cast(x, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(few)
            value = likelihood.log_density(x, few)
        change = sum(tf.reduce_sum(s * g, -1) for s, g in zip(step, tape.gradient(value, few)))
        up, down = (likelihood.log_density(x, [o + sign * s for o, s in zip(few, step)])[..., 0] for sign in (1, -1))
        np.testing.assert_allclose(change, (up - down) / 2, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_mean_and_draws(name):
    likelihood = make(name)
    outputs = [output[:, :20] for output in outputs_of(likelihood, tf.float32)]
    probs = np.exp(log_probs(likelihood, outputs).numpy().astype(np.float64))
    mean = (COUNTS[:, 0] / 255 * probs).sum(axis=0)
    rounding = 0.5 / 255 if "logistic" in name else 1e-5
    np.testing.assert_allclose(likelihood.mean(outputs)[0, :, 0], mean, atol=rounding)

    many = [tf.repeat(output, 20_000, axis=0) for output in outputs]
    draws = likelihood.draw(many, 1).numpy()[..., 0] * 255
    assert draws.shape == (20_000, 20)
    np.testing.assert_allclose(draws, np.rint(draws), atol=1e-4)
    assert draws.min() >= 0 and draws.max() <= 255
    below = np.array([(draws <= count + 0.5).mean(axis=0) for count in range(LEVELS)])
    assert np.abs(below - probs.cumsum(axis=0)).max() < 0.02  # Kolmogorov and Smirnov's distance
    assert (draws != 255 * likelihood.draw(many, 2).numpy()[..., 0]).any()


@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_a_pixel_lie_a_row_of_pixels_apart(name):
    """Three pixels at once are three pixels one by one."""
    likelihood = make(name)
    outputs = [np.random.default_rng(5).standard_normal([2, likelihood.width, 3]).astype(np.float32)
               for _ in range(likelihood.num_outputs)]
    x = tf.constant([[0, 17 / 255, 1], [254 / 255, 0, 100 / 255]], tf.float32)
    for function in (likelihood.log_density, lambda _, outputs: likelihood.mean(outputs)):
        together = function(x, [tf.constant(output.reshape(2, -1)) for output in outputs])
        alone = [function(x[:, d:d + 1], [tf.constant(output[..., d]) for output in outputs]) for d in range(3)]
        np.testing.assert_allclose(together, tf.concat(alone, 1), rtol=1e-5, atol=1e-6)
    assert likelihood.draw([tf.constant(output.reshape(2, -1)) for output in outputs], 0).shape == (2, 3)


@pytest.mark.parametrize("case, likelihood", [
    ("dense, uneven super-pixels", "tied_mixture"), ("conv_leaf, uneven super-pixels", "tied_mixture"),
    ("conv_leaf, a loop over experts", "logistic_mixture"), ("conv_image 8x8", "tied_mixture"),
    ("dense", "logistic"), ("dense, mixture", "beta_binomial"), ("dense, no rectangles", "categorical")])
def test_bound_and_its_gradients_are_the_plain_implementations(case, likelihood):
    model, plain = models(case, likelihood)
    assert_same_bound_and_gradients(model, plain, tf.round(255 * images(model)) / 255)


@pytest.mark.parametrize("name", NAMES)
def test_two_pixels_sum_to_one_over_all_images(name):
    """By quadrature over the one-dimensional codes of two super-pixels of a pixel each."""
    model = SPVAE(poon_domingos(1, 2, 1), (1, 2), name, hidden_units=3, latent_dim=1, seed=2)
    plain = PlainSPVAE(model)
    z = np.linspace(-8, 8, 801)
    prior = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    leaves = []
    for expert in plain.experts:
        outputs = [output[:, None] for output in expert.decode(tf.constant(z[:, None], tf.float32))]
        pixels = plain.pixel_log_probs(tf.constant(COUNTS[:, 0] / 255, tf.float32), *outputs)[..., 0]
        leaves.append(tf.math.log(tf.linalg.matvec(tf.exp(pixels), tf.constant(prior, tf.float32), transpose_a=True)))
    left, right = tf.stack(leaves[:2], -1), tf.stack(leaves[2:], -1)  # log p_l(x_l) of every count, [256, 2]
    every_pair = tf.reshape(tf.stack([tf.repeat(left, LEVELS, 0), tf.tile(right, [LEVELS, 1])], 1), [-1, 2, 2])
    total = np.exp(model.spn(every_pair).numpy().astype(np.float64)).sum()
    assert total == pytest.approx(1, abs=2e-5)


def test_the_table_begins_with_peaks_and_comes_last():
    model = build_model("SPVAE", (2, 4), "tied_mixture", 3, 2, delta=2, num_categories=7)
    assert model.trainable_variables[-1] is model.likelihood.table
    categories = model.likelihood.categories(tf.float32).numpy()
    assert categories.shape == (7, LEVELS)
    np.testing.assert_array_equal(categories.argmax(axis=1), [0, 252, 253, 254, 255, 84, 168])
    assert categories.max(axis=1)[:5].min() > 0.5 > categories.max(axis=1)[5:].max() and categories.min() > 1e-9
    assert model.get_config()["num_categories"] == 7 and model.count_params() == sum(
        math.prod(v.shape) for v in model.trainable_variables)
    with pytest.raises(InputError, match="num_categories is 0; it must be an integer of at least 1"):
        build_model("VAE", (2, 4), "tied_mixture", 3, 2, num_categories=0)


@pytest.mark.parametrize("name", NAMES)
def test_what_lies_between_counts_raises_one_line(name, tmp_path):
    with pytest.raises(InputError, match=r"image 0 is 127.5/255 at pixel 1; a discrete model takes multiples of 1/255"):
        build_model("VAE", (1, 2), name, 3, 2).log_prob(np.array([[0.2, 0.5]]))
    np.savez(tmp_path / "mine.npz", **{f"x_{split}": np.full([3, 1, 2], 0.5) for split in SPLITS})
    with pytest.raises(InputError, match="multiples of 1/255"):
        load_dataset(tmp_path / "mine.npz", name, preparation="raw")


def test_names_that_do_not_exist():
    names = ", ".join(LIKELIHOODS)
    assert {name for name, kind in LIKELIHOODS.items() if kind.of_counts} == {*NAMES, "discrete"}
    with pytest.raises(InputError, match=f"likelihood is 'gaussian'; it must be one of {names}"):
        build_model("VAE", (2, 4), "gaussian", 3, 2)


def test_the_uniform_distribution_has_eight_bits():
    assert likelihoods.bits_per_dimension(likelihoods.uniform_log_prob(784), 784) == pytest.approx(8)
    assert likelihoods.uniform_log_prob(784) == pytest.approx(-784 * math.log(256))
    np.testing.assert_allclose(likelihoods.bits_per_dimension(np.array([-math.log(2), -4 * math.log(2)]), 2), [0.5, 2])
