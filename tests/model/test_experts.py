"""Stacked experts against one Keras VAE each (model/reference.py): outputs, bounds, gradients; first weights."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from spvae_tf.model import layers, mixture
from spvae_tf.model.reference import PlainSPVAE
from spvae_tf.model.region_graph import poon_domingos, random_binary_trees, rectangle, single_region
from spvae_tf.spvae import SPVAE, build_model

# name -> (region graph, image shape, architecture, VAEs per leaf region)
CASES = {
    "dense": (poon_domingos(4, 4, 2), (4, 4), "dense", 2),
    "dense, uneven super-pixels": (poon_domingos(6, 5, 4), (6, 5), "dense", 2),
    "dense, no rectangles": (random_binary_trees(9, 2, 2, seed=0), (3, 3), "dense", 1),
    "dense, single region": (single_region(6), (2, 3), "dense", 1),
    "dense, mixture": (single_region(6), (2, 3), "dense", 3),
    "conv_leaf 7x7": (poon_domingos(14, 7, 7), (14, 7), "conv_leaf", 2),
    "conv_leaf 5x6": (single_region(30), (5, 6), "conv_leaf", 2),
    "conv_leaf, uneven super-pixels": (poon_domingos(6, 5, 4), (6, 5), "conv_leaf", 2),
    "conv_leaf, a loop over experts": (poon_domingos(11, 20, 11), (11, 20), "conv_leaf", 1),
    "conv_image 8x8": (single_region(64), (8, 8), "conv_image", 1),
    "conv_image 7x5": (single_region(35), (7, 5), "conv_image", 1),
    "conv_image 6x10, two experts": (single_region(60), (6, 10), "conv_image", 2),
    "conv_image 11x10, a loop over experts": (single_region(110), (11, 10), "conv_image", 2),
}
LIKELIHOODS = ["continuous", "discrete"]
BATCH, SAMPLES = 3, 4


def perturb_biases(model, seed=0):
    """Moves the biases off zero; kernels and sum weights are random from the start."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if variable.name == "bias":
            variable.assign(0.5 * rng.standard_normal(variable.shape))


def pair(model):
    """The model and a plain one with its weights."""
    plain = PlainSPVAE(model)
    plain.copy_weights(model)
    return model, plain


@functools.cache
def models(case, likelihood):
    graph, image_shape, architecture, num_components = CASES[case]
    model = SPVAE(graph, image_shape, likelihood, architecture, hidden_units=5, latent_dim=3, num_sums=2,
                  num_components=num_components, seed=1)
    perturb_biases(model)
    return pair(model)


def images(model):
    return tf.constant(np.random.default_rng(2).random([BATCH, math.prod(model.image_shape)]), tf.float32)


def noise(model):
    return tf.random.stateless_normal(model.noise_shape(SAMPLES, BATCH), [3, 4])


def assert_same_bound_and_gradients(model, plain, x):
    """The bounds are equal, and so are their gradients by every weight, up to the rounding of float32."""
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        stacked_bound = model.bound(x, model.log_base(x), noise(model))
    gradients = map(tf.convert_to_tensor, tape.gradient(stacked_bound, variables))
    stacked = dict(zip([v.ref() for v in variables], gradients, strict=True))
    with tf.GradientTape() as tape:
        plain_bound = plain.bound(x, noise(model))
    gradients = tape.gradient(plain_bound, plain.trainable_variables)
    expected = dict(zip([v.ref() for v in plain.trainable_variables], gradients, strict=True))
    np.testing.assert_allclose(stacked_bound, plain_bound, rtol=5e-6, atol=1e-5)
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    rest = {key: gradient.numpy().copy() for key, gradient in stacked.items()}
    compared = 0
    for variable, counterpart, index in plain.counterparts(model):
        gradient = expected[variable.ref()].numpy()
        error = np.abs(stacked[counterpart.ref()].numpy()[index] - gradient).max()
        assert error <= 2e-3 * np.abs(gradient).max() + 1e-5 * largest, (counterpart.name, index)
        rest[counterpart.ref()][index] = 0
        compared += gradient.size
    assert compared == sum(math.prod(v.shape) for v in plain.trainable_variables)
    for key, gradient in rest.items():  # only weights of padded pixels have no counterpart
        assert not gradient.any(), key.deref().name


def places(model, leaf):
    """Where a leaf region's pixels lie among its experts' outputs, which are padded to the largest leaf."""
    if model.get_config()["architecture"] == "dense":
        return np.arange(len(leaf.scope))
    boxes = [rectangle(region, model.image_shape[1]) for region in model.graph.leaf_regions]
    height, width = rectangle(leaf, model.image_shape[1])[2:]
    frame = np.arange(max(box[2] for box in boxes) * max(box[3] for box in boxes))
    return frame.reshape(-1, max(box[3] for box in boxes))[:height, :width].ravel()


@pytest.mark.parametrize("case", CASES)
def test_encoders_and_decoders(case):
    model, plain = models(case, "continuous")
    x = images(model)
    mean, precision = model.encode(x)
    z = tf.random.stateless_normal(model.noise_shape(SAMPLES, BATCH), [5, 6])
    outputs = [tf.reshape(output, [model.num_experts, SAMPLES * BATCH, -1]) for output in model.decode(z)]
    leaves = [leaf for leaf in model.graph.leaf_regions for _ in range(model.num_components)]
    for number, (leaf, expert) in enumerate(zip(leaves, plain.experts, strict=True)):
        expected_mean, expected_precision = expert.encode(tf.gather(x, leaf.scope, axis=1))
        np.testing.assert_allclose(mean[number], expected_mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(precision[number], expected_precision, rtol=1e-5, atol=1e-5)
        assert precision.numpy().min() >= 1
        expected_outputs = expert.decode(tf.reshape(z[number], [SAMPLES * BATCH, -1]))
        for output, expected in zip(outputs, expected_outputs, strict=True):
            output = output[number].numpy()[:, places(model, leaf)]
            np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("case", CASES)
def test_bound_and_its_gradients(case, likelihood):
    model, plain = models(case, likelihood)
    assert_same_bound_and_gradients(model, plain, images(model))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("name", ["SPVAE", "VAE", "Conv-SPVAE", "Conv-VAE"])
def test_the_four_models_of_the_paper(name, likelihood):
    model, plain = pair(build_model(name, (8, 8), likelihood, hidden_units=4, latent_dim=2, seed=3))
    assert model.num_experts == len(plain.experts) == (32 if "SP" in name else 1)
    assert_same_bound_and_gradients(model, plain, images(model))


@pytest.mark.parametrize("case", ["dense", "conv_leaf 5x6"])
def test_gradients_of_black_images_before_training(case):
    """Zero pixels and zero biases put the first hidden layers at softplus(0), where the derivative is 1/2."""
    graph, image_shape, architecture, num_components = CASES[case]
    model, plain = pair(
        SPVAE(graph, image_shape, "continuous", architecture, 5, 3, num_components=num_components))
    assert_same_bound_and_gradients(model, plain, tf.zeros_like(images(model)))


def test_copied_weights_are_the_model():
    """The oracle does not share the stacked weights: with weights of its own it gives another bound."""
    model, plain = models("dense", "continuous")
    other = PlainSPVAE(model)
    x = images(model)
    assert np.abs(other.bound(x, noise(model)) - plain.bound(x, noise(model))).min() > 1e-2
    assert len(plain.trainable_variables) == sum(1 for _ in plain.counterparts(model))


def test_unobserved_pixels_are_filled_for_the_encoder(monkeypatch):
    """As 0 at first, then by the decoder; what stands there does not matter, nor do leaves without holes change."""
    model, _ = models("conv_leaf, uneven super-pixels", "continuous")
    x = images(model)
    observed = np.random.default_rng(4).random(x.shape) < 0.5
    observed[:, model.graph.leaf_regions[0].scope] = True
    zeroed = np.where(observed, x, np.float32(0))
    filled = model.encode(x, observed)
    for masked, other, whole in zip(filled, model.encode(np.where(observed, x, np.nan), observed), model.encode(x)):
        np.testing.assert_array_equal(masked, other)
        np.testing.assert_allclose(masked[:2], whole[:2], rtol=1e-6)
    mean, precision = model.encode(zeroed)
    for _ in range(mixture.FILLING_ROUNDS):
        guess = model.likelihood.mean(model.decode(mean[:, None]))[:, 0]
        mean, precision = model.encoder(tf.where(model.present(observed), model.split(zeroed), guess)
                                        * tf.cast(model.present(), tf.float32))
    np.testing.assert_allclose(filled[0], mean, atol=1e-6)
    np.testing.assert_allclose(filled[1], precision, rtol=1e-5)
    assert np.abs(mean - model.encode(zeroed)[0]).max() > 1e-3
    monkeypatch.setattr(mixture, "FILLING_ROUNDS", 0)
    for masked, other in zip(model.encode(x, observed), model.encode(zeroed)):
        np.testing.assert_array_equal(masked, other)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (5, 6), (9, 4)])
def test_a_loop_over_experts_convolves_as_tensorflow_does(size, stride, transposed):
    strided = tuple(-(-n // stride) for n in size)
    input_size, output_size = (strided, size) if transposed else (size, strided)
    layer = layers.StackedConv(2, input_size, output_size, (3, 2), stride, np.random.default_rng(0), transposed)
    layer.bias.assign(np.random.default_rng(1).standard_normal(layer.bias.shape))
    rows = tf.random.stateless_normal([2, 4, 3 * math.prod(input_size)], [0, 1])
    expected = []
    for expert in range(2):
        kernel, inputs = layer.kernel[expert], tf.reshape(rows[expert], [4, *input_size, 3])
        if transposed:
            out = tf.nn.conv2d_transpose(inputs, kernel, [4, *output_size, 2], stride, "SAME")
        else:
            out = tf.nn.conv2d(inputs, kernel, stride, "SAME")
        expected.append(tf.reshape(out + layer.bias[expert], [4, -1]))
    np.testing.assert_allclose(layer._by_expert(rows), expected, atol=1e-5)


# model, image side, likelihood, H, n_z, parameters: Table 2, whose thousands are cut off
TABLE_2 = [
    ("SPVAE", 28, "continuous", 30, 25, 413352),
    ("SPVAE", 32, "continuous", 32, 25, 511080),
    ("SPVAE", 32, "continuous", 32, 25, 511080),
    ("SPVAE", 28, "discrete", 30, 25, 310024),
    ("SPVAE", 32, "discrete", 32, 50, 461480),
    ("SPVAE", 32, "discrete", 30, 25, 353704),
    ("VAE", 28, "continuous", 300, 200, 1545168),
    ("VAE", 32, "continuous", 300, 100, 1713448),
    ("VAE", 32, "continuous", 300, 50, 1653348),
    ("VAE", 28, "discrete", 300, 200, 1158584),
    ("VAE", 32, "discrete", 600, 100, 3108024),
    ("VAE", 32, "discrete", 600, 200, 3288224),
    ("Conv-SPVAE", 28, "continuous", 64, 25, 1259048),
    ("Conv-SPVAE", 32, "continuous", 64, 25, 1604648),
    ("Conv-SPVAE", 32, "continuous", 32, 25, 1028136),
    ("Conv-SPVAE", 28, "discrete", 64, 25, 1257864),
    ("Conv-SPVAE", 32, "discrete", 64, 25, 1603464),
    ("Conv-SPVAE", 32, "discrete", 32, 25, 1026952),
    ("Conv-VAE", 28, "continuous", 64, 200, 894962),
    ("Conv-VAE", 32, "continuous", 128, 150, 1219470),
    ("Conv-VAE", 32, "continuous", 128, 150, 1219470),
    ("Conv-VAE", 28, "discrete", 64, 200, 894673),
    ("Conv-VAE", 32, "discrete", 128, 200, 1436881),
    ("Conv-VAE", 32, "discrete", 128, 150, 1219181),
]


def test_parameter_counts_of_table_2():
    for name, side, likelihood, hidden_units, latent_dim, count in dict.fromkeys(TABLE_2):
        model = build_model(name, (side, side), likelihood, hidden_units, latent_dim)
        assert model.count_params() == count, (name, side, likelihood, hidden_units, latent_dim)


def test_initial_dense_weights():
    """A normal of variance 1.3 · 2/fan_in, cut at two standard deviations (TensorFlow 1); zero biases."""
    layer = layers.StackedDense(4, 50, 300, np.random.default_rng(0))
    kernel = layer.kernel.numpy()
    # the variance of a standard normal cut at ±2 is 1 − 4φ(2)/(Φ(2) − Φ(−2))
    cut_variance = 1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))
    limit = 2 * math.sqrt(1.3 * 2 / 50)
    assert abs(kernel.mean()) < 5 * math.sqrt(2 / 50 / kernel.size)
    assert kernel.var() == pytest.approx(1.3 * 2 / 50 * cut_variance, rel=0.02)
    assert 1.3 * 2 * cut_variance == pytest.approx(2.012, abs=0.001)
    assert 0.99 * limit < np.abs(kernel).max() <= limit * (1 + 1e-6)
    assert not layer.bias.numpy().any()


@pytest.mark.parametrize("transposed", [False, True])
def test_initial_convolution_weights(transposed):
    """Glorot's uniform: ±√(6/(fan_in + fan_out)) with 9 taps each way; zero biases."""
    layer = layers.StackedConv(4, (4, 4), (4, 4), (20, 30), 1, np.random.default_rng(0), transposed)
    kernel, limit = layer.kernel.numpy(), math.sqrt(6 / (9 * 20 + 9 * 30))
    assert kernel.shape == ((4, 3, 3, 30, 20) if transposed else (4, 3, 3, 20, 30))
    assert 0.999 * limit < np.abs(kernel).max() <= limit
    assert abs(kernel.mean()) < 5 * limit / math.sqrt(3 * kernel.size)
    assert kernel.var() == pytest.approx(limit**2 / 3, rel=0.02)
    assert not layer.bias.numpy().any()


@pytest.mark.parametrize("case", ["dense", "conv_leaf 5x6", "conv_image 6x10, two experts"])
def test_initial_weights_are_a_function_of_the_seed(case):
    graph, image_shape, architecture, num_components = CASES[case]
    first, again, other = [
        SPVAE(graph, image_shape, "continuous", architecture, 5, 3, num_components=num_components, seed=seed)
        for seed in (1, 1, 2)]
    kernels = []
    for variables in zip(first.trainable_variables, again.trainable_variables, other.trainable_variables):
        values = [variable.numpy() for variable in variables]
        np.testing.assert_array_equal(values[0], values[1])
        if variables[0].name == "kernel":
            assert (values[0] != values[2]).all()
            kernels.extend(values[0])  # one per expert
    entries = np.concatenate([kernel.ravel() for kernel in kernels])
    assert len(np.unique(entries)) > 0.99 * entries.size  # no two kernels are the same draw
