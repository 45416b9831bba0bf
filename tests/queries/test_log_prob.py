"""log p(x) and its marginals for any k, against quadrature and all induced trees; q fitted to each image."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from oracles import (
    BATCH,
    MODELS,
    bound_draws,
    deviation,
    exact_log_prob,
    images,
    models,
    standard_error,
    twin,
)

from spvae_tf.errors import InputError
from spvae_tf.model.region_graph import poon_domingos, single_region
from spvae_tf.queries import density
from spvae_tf.spvae import SPVAE


@pytest.mark.parametrize("name", MODELS)
def test_log_prob_is_the_integral(name):
    model, plain = models(name)
    x = images(model)
    value, sizes = model.estimate(x, num_samples=20_000, seed=10)
    assert sizes.shape == (BATCH, len(model.graph.leaf_regions), model.num_components)
    assert (sizes.numpy() >= 1).all() and (sizes.numpy() <= 20_000 * 1.001).all()
    tolerance = 5 * deviation(sizes)
    assert tolerance.max() < 0.25  # enough samples to tell a right value from a wrong one
    exact = exact_log_prob(model, plain, x)
    assert (np.abs(value - exact) < tolerance + 2e-6 * np.abs(exact)).all(), (value, exact, tolerance)


def test_a_gpus_larger_chunks_estimate_the_same_integral(monkeypatch):
    model, plain = models.__wrapped__("SPVAE")  # not compiled yet
    x = images(model)
    on_a_cpu = models("SPVAE")[0].log_prob(x, 20_000, seed=10)
    monkeypatch.setattr("spvae_tf.ops.device.on_gpu", lambda: True)
    value, sizes = model.estimate(x, 20_000, seed=10)
    assert (value.numpy() != on_a_cpu.numpy()).all()  # the noise falls otherwise
    assert (np.abs(value - exact_log_prob(model, plain, x)) < 5 * deviation(sizes)).all()


@pytest.mark.parametrize("name", MODELS)
def test_marginals_are_the_integral(name):
    model, plain = models(name)
    x = images(model)
    observed = np.random.default_rng(11).random(x.shape) < 0.5
    observed[1] = False
    observed[2] = True
    observed[3] = False
    observed[3, list(model.graph.leaf_regions[0].scope)[:2]] = True  # no other leaf is observed
    value, sizes = model.estimate(x, num_samples=20_000, observed=observed, seed=12)
    exact = exact_log_prob(model, plain, x, observed)
    assert value.numpy()[1] == 0 and exact[1] == pytest.approx(0, abs=1e-9)
    tolerance = 5 * deviation(sizes)
    assert (np.abs(value - exact) < tolerance + 2e-6 * np.abs(exact)).all(), (value, exact, tolerance)
    # everything observed: the same samples, the same value as without a mask
    whole = model.log_prob(x, num_samples=20_000, seed=12)
    np.testing.assert_allclose(value[2], whole[2], rtol=1e-6)
    np.testing.assert_allclose(model.log_prob(x, 20_000, np.ones(x.shape, bool), seed=12), whole, rtol=1e-6)
    # what stands at unobserved pixels does not matter, not even NaN
    unknown = np.where(observed, x, np.nan)
    np.testing.assert_array_equal(model.log_prob(unknown, 20_000, observed, seed=12), value)


def test_a_leaf_without_an_observed_pixel_is_exactly_one():
    """Other leaves give noise; where only a leaf of exact weights is observed, none of it may show."""
    graph = poon_domingos(3, 3, 2)
    model = SPVAE(graph, (3, 3), "continuous", hidden_units=4, latent_dim=1, seed=13)
    # the first leaf region's two experts: q(z | x) = p(z) and p(x | z) = p(x)
    for variable in model.trainable_variables:
        if variable.name in ("kernel", "bias"):
            values = variable.numpy()
            values.reshape(-1, model.num_experts, *values.shape[1:])[:, :2] = 0  # of every head
            variable.assign(values)
    x = images(model)
    observed = np.zeros(x.shape, bool)
    observed[:, graph.leaf_regions[0].scope] = True
    values = [model.log_prob(x, num_samples=7, observed=observed, seed=seed).numpy() for seed in (1, 2)]
    exact = (-0.5 * (x[:, graph.leaf_regions[0].scope] - 0.5)**2 - 0.5 * math.log(2 * math.pi)).sum(axis=1)
    np.testing.assert_allclose(values[0], exact, rtol=1e-6)
    np.testing.assert_allclose(values[1], exact, rtol=1e-6)
    noisy = [model.log_prob(x, num_samples=7, observed=~observed, seed=seed).numpy() for seed in (1, 2)]
    assert np.abs(noisy[0] - noisy[1]).min() > 1e-4


def test_nothing_observed_is_exactly_zero():
    """Also with sum weights (seed 1) that add up to 1 − 2e-7 in float32."""
    graph = poon_domingos(3, 3, 1)
    model = SPVAE(graph, (3, 3), "discrete", hidden_units=1, latent_dim=1, num_sums=3, seed=1)
    value = model.log_prob(np.full([2, 9], np.nan), num_samples=1, observed=np.zeros([2, 9], bool))
    np.testing.assert_array_equal(value, [0, 0])
    value = model.log_prob(np.full([2, 9], np.nan), 1, np.zeros([2, 9], bool), refinements=2)
    np.testing.assert_array_equal(value, [0, 0])


# --- q fitted to each image ----------------------------------------------------------------------------------


def elbos_of_gaussians(plain, x, observed, means, deviations):
    """E_q[log p(x_observed | z)] − KL(q ‖ p) for every q = N(mean, deviation²) of one expert and one image, by
    Gauss–Hermite quadrature: [q], float64."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    z = means[:, None] + deviations[:, None] * nodes
    outputs = plain.experts[0].decode(tf.constant(z.reshape(-1, 1), tf.float32))
    outputs = [tf.cast(output, tf.float64) for output in outputs]
    pixels = plain.pixel_log_probs(tf.constant(x, tf.float64), *outputs).numpy()
    expected = np.where(observed, pixels, 0).sum(axis=-1).reshape(z.shape) @ (weights / weights.sum())
    return expected + 0.5 * (1 + 2 * np.log(deviations) - means**2 - deviations**2)


@pytest.mark.parametrize("likelihood, scale", [("continuous", 4), ("discrete", 3)])
def test_refinement_finds_the_best_gaussian_for_each_image(likelihood, scale):
    """With a decoder so strong that the encoder's q(z | x) is far from p(z | x)."""
    model = SPVAE(single_region(6), (2, 3), likelihood, hidden_units=4, latent_dim=1, num_components=1, seed=8)
    for variable in model.decoder.trainable_variables:
        variable.assign(scale**(1 / 3) * variable)
    plain = twin(model)
    x = images(model)
    observed = np.array([[True, True, False, True, False, True]] * BATCH)
    observed[0] = True
    grid = [a.ravel() for a in np.meshgrid(np.linspace(-3, 3, 241), np.geomspace(0.01, 1.5, 120))]
    tensors = tf.constant(x), tf.constant(observed)
    encoder, refined = ([a.numpy()[0, :, 0].astype(np.float64) for a in q] for q in
                        (model.encode(*tensors), density.refine(model, *tensors, 400, tf.constant([0, 20]))))
    gains = []
    for image in range(BATCH):
        start, found = (elbos_of_gaussians(plain, x[image], observed[image], mean[[image]], precision[[image]]**-0.5)
                        for mean, precision in (encoder, refined))
        best = elbos_of_gaussians(plain, x[image], observed[image], *grid).max()
        assert found == pytest.approx(best, abs=0.1)
        gains.append(best - start)
    assert min(gains) > 5  # there was something to find


def test_refined_bounds_are_tighter_and_still_bounds(monkeypatch):
    """Theorem 1 with each leaf's q fitted to its part of the image: k = 1, many times over, against the integral."""
    monkeypatch.setattr("spvae_tf.queries.density.EVALUATION_BATCH", 1500)  # the images are small
    model, plain = models("SPVAE, uneven")
    x, observed = images(model)[:1], np.random.default_rng(21).random([1, 30]) < 0.6
    exact = exact_log_prob(model, plain, x, observed)[0]
    many = np.repeat(x, 3000, axis=0), 1, np.repeat(observed, 3000, axis=0)
    plainly, refined = (model.log_prob(*many, seed=22, refinements=steps).numpy().astype(np.float64)
                        for steps in (0, 100))
    assert refined.mean() < exact + 4 * standard_error(refined)
    assert refined.mean() > plainly.mean() + 5 * math.hypot(standard_error(refined), standard_error(plainly))
    joint, evidence = (model.log_prob(x, 9, mask, seed=23, refinements=3) for mask in (observed | True, observed))
    conditional = model.conditional_log_prob(x, ~observed, observed, 9, seed=23, refinements=3)
    np.testing.assert_array_equal(conditional, joint - evidence)


def test_many_images_and_few_samples():
    """More images than one batch, fewer samples than a chunk: the mean is that of `bound` with the same k."""
    model, plain = models("VAE")
    x = images(model)[0]
    done = []
    value, sizes = model.estimate(np.repeat(x[None], 1203, axis=0), num_samples=3, seed=14,
                                  progress=lambda count, values: done.append((count, values)))
    assert value.shape == (1203,) and sizes.shape == (1203, 1, 1)
    assert (sizes.numpy() <= 3.001).all() and (sizes.numpy() >= 0.999).all()
    assert [count for count, _ in done] == [*range(100, 1201, 100), 1203]
    np.testing.assert_array_equal(done[-1][1], value)
    assert len(np.unique(value)) > 1190  # every image of every batch has its own noise
    draws = bound_draws(model, x, num_samples=3, draws=40_000, seed=15)
    error = math.hypot(standard_error(draws), standard_error(value.numpy()))
    assert abs(value.numpy().mean() - draws.mean()) < 5 * error
    assert draws.mean() < exact_log_prob(model, plain, x[None])[0] - 5 * standard_error(draws)


def test_seeds():
    model, _ = models("VAE")
    x = images(model)
    first = model.log_prob(x, num_samples=10, seed=17)
    np.testing.assert_array_equal(first, model.log_prob(x, num_samples=10, seed=17))
    others = [model.log_prob(x, num_samples=10, seed=seed) for seed in (18, None, None)]
    for one, other in itertools.combinations([first, *others], 2):
        assert (one.numpy() != other.numpy()).all()
    called = model(x, num_samples=10, seed=17)
    assert called.shape == (BATCH,)
    np.testing.assert_array_equal(called, model(x, num_samples=10, seed=17))
    assert (called.numpy() != model(x, num_samples=10, seed=18).numpy()).all()


def test_no_images():
    model, _ = models("SPVAE")
    nothing = np.zeros([0, 16], np.float32)
    assert model.log_prob(nothing).shape == (0,)
    assert model.log_prob(nothing, observed=np.zeros([0, 16], bool)).shape == (0,)
    value, sizes = model.estimate(nothing)
    assert value.dtype == tf.float32 and sizes.shape == (0, 4, 2)


X = np.full([2, 6], 0.5, np.float32)
ONE_NAN = np.where(np.arange(12).reshape(2, 6) == 9, np.float32(np.nan), X)
MASK = np.ones([2, 6], bool)


@pytest.mark.parametrize("x, options, message", [
    (X[0], {}, r"images have shape \(6,\); the model takes \[batch, 6\]"),
    (X[:, :5], {}, r"images have shape \(2, 5\); the model takes \[batch, 6\]"),
    (X.reshape(2, 2, 3), {}, r"images have shape \(2, 2, 3\)"),
    (np.zeros([2, 6], np.uint8), {}, r"images are uint8; they must be floating point in \[0, 1\]"),
    (np.zeros([2, 6], bool), {}, "images are bool"),
    (ONE_NAN, {}, "image 1 is NaN at pixel 3"),
    (ONE_NAN, {"observed": MASK}, "image 1 is NaN at pixel 3"),
    (X + 0.6, {}, r"pixels reach from 1.1 to 1.1; they must lie in \[0, 1\]"),
    (X - 0.6, {}, r"pixels reach from -0.1\d* to -0.1\d*; they must lie"),
    (X * np.inf, {}, "pixels reach from inf to inf"),
    (X, {"observed": MASK.astype(np.float32)}, "observed is float32"),
    (X, {"observed": MASK[0]}, r"observed is bool of shape \(6,\); it must be bool of shape \(2, 6\)"),
    (X, {"num_samples": 0}, r"num_samples is 0; it must be an integer in 1\.\.2147483647"),
    (X, {"num_samples": -5}, "num_samples is -5"),
    (X, {"num_samples": 2.5}, "num_samples is 2.5"),
    (X, {"num_samples": "5"}, "num_samples is '5'"),
    (X, {"refinements": -1}, "refinements is -1"),
    (X, {"refinements": 1.5}, "refinements is 1.5"),
])
def test_refuses_with_one_line(x, options, message):
    model, _ = models("VAE")
    with pytest.raises(InputError, match=message) as error:
        model.log_prob(x, **options)
    assert "\n" not in str(error.value)


def test_takes_floating_point_of_any_width():
    model, _ = models("VAE")
    x = images(model).astype(np.float64)
    value = model.log_prob(x.astype(np.float32), num_samples=10, seed=19)
    np.testing.assert_allclose(model.log_prob(x, num_samples=10, seed=19), value, rtol=1e-6)
    np.testing.assert_allclose(model.log_prob(tf.constant(x), num_samples=10, seed=19), value, rtol=1e-6)
