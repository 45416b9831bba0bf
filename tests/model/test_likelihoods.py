"""The likelihoods of section 4 against closed forms in float64 and against TensorFlow Probability."""

import math

import numpy as np
import pytest
import tensorflow as tf

from spvae_tf.errors import InputError
from spvae_tf.model.likelihoods import Binomial, Gaussian, get_likelihood

LIKELIHOODS = [Gaussian(), Binomial()]
# every pixel value next to every output: [values, outputs]
PIXELS = np.array([0, 1 / 255, 17 / 255, 0.25, 0.5, 0.7391, 254 / 255, 1])[:, None]
OUTPUTS = np.concatenate([np.linspace(-8, 8, 33), [-50, -16, -15, 15, 16, 50]])
lgamma = np.vectorize(math.lgamma)


def sigmoid(o):
    return np.exp(-np.logaddexp(0, -np.asarray(o, np.float64)))


def outputs_of(likelihood):
    """One or two arrays of decoder outputs for PIXELS, float64."""
    return (OUTPUTS, np.roll(OUTPUTS, 5))[:likelihood.num_outputs]


def closed_form(likelihood, x, outputs):
    """log p(x | z) per pixel as the released code has it, in float64 and without cancellation in 1 − p."""
    if likelihood.name == "continuous":
        precision = 1 + outputs[1]**2
        return 0.5 * (np.log(precision) - math.log(2 * math.pi) - precision * (x - sigmoid(outputs[0]))**2)
    # rho = sigmoid·(1 − 2e-7) + 1e-7, and 1e-7 once more inside each logarithm
    log_p = np.log(sigmoid(outputs[0]) * (1 - 2e-7) + 1e-7 + 1e-7)
    log_q = np.log(sigmoid(-outputs[0]) * (1 - 2e-7) + 1e-7 + 1e-7)
    counts = 255 * x
    coefficient = math.lgamma(256) - lgamma(counts + 1) - lgamma(256 - counts)
    return coefficient + counts * log_p + (255 - counts) * log_q


def log_prob(likelihood, x, outputs, dtype):
    x, outputs = tf.constant(x, dtype), tuple(tf.constant(o, dtype) for o in outputs)
    result = likelihood.log_base(x) + likelihood.log_density(x, outputs)
    assert result.dtype == dtype
    return result.numpy()


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda lik: lik.name)
def test_base_and_kernel_are_the_closed_form(likelihood):
    outputs = outputs_of(likelihood)
    exact = closed_form(likelihood, PIXELS, outputs)
    assert exact.shape == (8, 39)
    np.testing.assert_allclose(log_prob(likelihood, PIXELS, outputs, tf.float64), exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda lik: lik.name)
def test_float32_is_the_closed_form_too(likelihood):
    # evaluated at what float32 makes of pixels and outputs
    x = PIXELS.astype(np.float32)
    outputs = [o.astype(np.float32) for o in outputs_of(likelihood)]
    exact = closed_form(likelihood, x.astype(np.float64), [o.astype(np.float64) for o in outputs])
    error = np.abs(log_prob(likelihood, x, outputs, tf.float32) - exact)
    # of up to 3,933 nats per pixel
    assert (error < 1e-6 * np.abs(exact) + 4e-4 * (likelihood.name == "discrete") + 1e-6).all(), error.max()


def test_gaussian_is_tfp_normal():
    outputs = outputs_of(Gaussian())
    distribution = Gaussian().distribution([tf.constant(o) for o in outputs])
    np.testing.assert_allclose(
        log_prob(Gaussian(), PIXELS, outputs, tf.float64), distribution.log_prob(PIXELS), rtol=1e-12)


def test_gaussian_deviation_is_at_most_one():
    o = tf.linspace(tf.constant(-1e3, tf.float64), 1e3, 2001)
    deviation = Gaussian().distribution((o, o)).stddev().numpy()
    assert deviation.max() == 1 and deviation.min() > 0
    np.testing.assert_allclose(deviation**-2, 1 + o.numpy()**2, rtol=1e-12)
    # precision 1 + 0 at the mean: the density of a standard normal
    zero = tf.zeros([1], tf.float64)
    value = Gaussian().log_base(zero + 0.5) + Gaussian().log_density(zero + 0.5, (zero, zero))
    assert value.numpy() == pytest.approx([-0.5 * math.log(2 * math.pi)], rel=1e-12)


def test_binomial_is_tfp_binomial_but_for_the_constant_inside_the_logarithms():
    """It exceeds TFP's log-probability by exactly c log(1 + 1e-7/p) + (255 − c) log(1 + 1e-7/(1 − p))."""
    (o,) = outputs_of(Binomial())
    distribution = Binomial().distribution([tf.constant(o)])
    counts = 255 * PIXELS
    p, q = [sigmoid(sign * o) * (1 - 2e-7) + 1e-7 for sign in (1, -1)]
    np.testing.assert_allclose(distribution.probs, p, rtol=1e-12)
    surplus = counts * np.log1p(1e-7 / p) + (255 - counts) * np.log1p(1e-7 / q)
    difference = log_prob(Binomial(), PIXELS, (o,), tf.float64) - distribution.log_prob(counts).numpy()
    np.testing.assert_allclose(difference, surplus, atol=1e-6)
    assert surplus[:, np.abs(o) <= 8].max() < 0.08  # nats: nothing where p is not extreme


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_no_count_costs_more_than_15_43_nats_per_trial(dtype):
    o = tf.constant([-1e30, -1e4, -100, -50, -16, 0, 16, 50, 100, 1e4, 1e30], dtype)
    kernel = Binomial().log_density(tf.constant(PIXELS, dtype), (o,)).numpy()
    assert np.isfinite(kernel).all()
    assert (kernel >= -15.43 * 255).all() and (kernel <= 1e-3).all()
    # the worst case is met: all 255 counts against p = 0, none against p = 1
    assert kernel[-1, 0] / 255 == pytest.approx(math.log(2e-7), rel=1e-6)
    assert kernel[0, -1] / 255 == pytest.approx(math.log(2e-7), rel=1e-6)
    assert kernel[0, 0] == pytest.approx(0, abs=1e-4) and kernel[-1, -1] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("dtype, atol", [(tf.float64, 1e-4), (tf.float32, 1e-3)])
def test_binomial_sums_to_one_over_the_counts(dtype, atol):
    counts = np.arange(256)[:, None] / 255
    total = np.exp(log_prob(Binomial(), counts, (OUTPUTS,), dtype).astype(np.float64)).sum(axis=0)
    np.testing.assert_allclose(total, 1, atol=atol)  # (1 + 2e-7)^255 − 1 = 5e-5


def test_gaussian_integrates_to_one():
    x = np.linspace(-20, 20, 400_001)[:, None]
    density = np.exp(log_prob(Gaussian(), x, (np.array([-2.0, 0, 3]), np.array([0.0, -1, 40])), tf.float64))
    np.testing.assert_allclose(density.sum(axis=0) * (x[1] - x[0]), 1, rtol=1e-9)


def test_counts_need_not_be_integers():
    """SVHN's are not: the coefficient's factorials are gamma functions."""
    for dtype, tolerance in ((np.float64, 1e-9), (np.float32, 1e-5)):  # of log-gammas up to 1,162 nats
        pixels = (np.array([0.5, 31.87, 127.3, 254.9]) / 255).astype(dtype)
        counts = 255 * pixels.astype(np.float64)
        exact = math.lgamma(256) - lgamma(counts + 1) - lgamma(256 - counts)
        np.testing.assert_allclose(Binomial().log_base(tf.constant(pixels)), exact, rtol=0, atol=tolerance)
    whole = [math.log(math.comb(255, c)) for c in range(256)]
    np.testing.assert_allclose(Binomial().log_base(tf.range(256, dtype=tf.float64) / 255), whole, atol=1e-9)


def kernel_gradients(likelihood, x, outputs, dtype):
    outputs = [tf.constant(o, dtype) for o in outputs]
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        value = likelihood.log_density(tf.constant(x, dtype), outputs)
    return [gradient.numpy() for gradient in tape.gradient(value, outputs)]


@pytest.mark.parametrize("x", [0, 0.3, 1])
def test_gradient_of_the_binomial(x):
    (gradient,) = kernel_gradients(Binomial(), x, (OUTPUTS,), tf.float64)
    p, q = sigmoid(OUTPUTS), sigmoid(-OUTPUTS)
    slope = p * q * (1 - 2e-7)
    exact = 255 * (x * slope / (p * (1 - 2e-7) + 2e-7) - (1 - x) * slope / (q * (1 - 2e-7) + 2e-7))
    assert 0 in OUTPUTS
    np.testing.assert_allclose(gradient, exact, rtol=1e-9, atol=1e-9)
    (rounded,) = kernel_gradients(Binomial(), x, (OUTPUTS,), tf.float32)
    np.testing.assert_allclose(rounded, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("x", [0, 0.3, 1])
def test_gradients_of_the_gaussian(x):
    first, second = outputs_of(Gaussian())
    gradients = kernel_gradients(Gaussian(), x, (first, second), tf.float64)
    mean, precision = sigmoid(first), 1 + second**2
    exact = (precision * (x - mean) * mean * sigmoid(-first), second / precision - second * (x - mean)**2)
    for gradient, expected in zip(gradients, exact):
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda lik: lik.name)
def test_gradients_are_finite_at_extreme_outputs(likelihood):
    extreme = np.array([-1e4, -1e3, -100, -88.8, -50, 0, 50, 88.8, 100, 1e3, 1e4])
    for x in (0, 0.3, 1):
        for gradient in kernel_gradients(likelihood, x, (extreme,) * likelihood.num_outputs, tf.float32):
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda lik: lik.name)
def test_mean_and_draws(likelihood):
    outputs = [tf.repeat([[-3.0, 0.0, 2.0]], 20_000, axis=0) for _ in range(likelihood.num_outputs)]
    mean = likelihood.mean(outputs)[0].numpy()
    np.testing.assert_allclose(mean, sigmoid([-3, 0, 2]), rtol=1e-6)
    draws = likelihood.draw(outputs, seed=1).numpy()
    variance = likelihood.distribution(outputs).variance()[0].numpy()
    if likelihood.name == "discrete":
        variance = variance / 255**2
        np.testing.assert_allclose(draws * 255, np.round(draws * 255), atol=1e-4)
        assert draws.min() >= 0 and draws.max() <= 1
    assert (np.abs(draws.mean(axis=0) - mean) < 5 * np.sqrt(variance / len(draws))).all()
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=0.06)
    assert (draws != likelihood.draw(outputs, seed=2).numpy()).any()


def test_names():
    for name, kind, num_outputs in (("continuous", Gaussian, 2), ("discrete", Binomial, 1)):
        likelihood = get_likelihood(name)
        assert likelihood is kind
        assert (likelihood.name, likelihood.num_outputs) == (name, num_outputs)
    with pytest.raises(InputError, match="likelihood is 'gaussian'; it must be one of continuous, discrete"):
        get_likelihood("gaussian")
