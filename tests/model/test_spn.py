"""The SPN layer against brute force: every induced tree of equation (5), one by one, in float64."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import BruteForce, ternary_graph, without_unit

from spvae_tf.errors import InputError
from spvae_tf.model.region_graph import (
    Partition,
    Region,
    RegionGraph,
    poon_domingos,
    random_binary_trees,
    single_region,
)
from spvae_tf.model.spn import SumProductNetwork

BATCH = 3

# name -> (graph, num_sums, num_components, induced trees counted by hand)
CASES = {
    "2x2": (poon_domingos(2, 2, 1), 2, 2, 2 * 2**2 * 2**4),
    "2x2, one sum": (poon_domingos(2, 2, 1), 1, 2, 2 * 2**4),
    "2x2, three components": (poon_domingos(2, 2, 1), 2, 3, 2 * 2**2 * 3**4),
    "2x3": (poon_domingos(2, 3, 1), 1, 2, 8 * 2**6),
    "2x3, one component": (poon_domingos(2, 3, 1), 3, 1, 8 * 3**4),
    "3x3 in uneven super-pixels": (poon_domingos(3, 3, 2), 3, 1, 2 * 3**2),
    "single region": (single_region(4), 2, 1, 1),
    "single region, three components": (single_region(4), 2, 3, 3),
    "random binary trees": (random_binary_trees(8, 2, 3, seed=0), 2, 2, 3 * 2**2 * 2**4),
    "deep random binary trees": (random_binary_trees(8, 3, 2, seed=1), 1, 2, None),
    "ternary": (ternary_graph(), 2, 2, (2**2 + 2 + 2) * 2**5),
    "ternary, three sums": (ternary_graph(), 3, 1, 3**2 + 3 + 3),
}
MIXTURES = [name for name in CASES if name != "single region"]


def gradients(spn, leaves):
    """Of the sum of the batch's log-likelihoods, in the leaves and in the sum weights."""
    with tf.GradientTape() as tape:
        tape.watch(leaves)
        value = tf.reduce_sum(spn(leaves))
    by_leaves, by_weights = tape.gradient(value, [leaves, spn.trainable_variables[0]])
    return by_leaves, tf.convert_to_tensor(by_weights)


def build(name, seed=1, dtype="float64"):
    graph, num_sums, num_components, _ = CASES[name]
    spn = SumProductNetwork(graph, num_sums, num_components, seed=seed, dtype=dtype)
    return spn


def draw_leaves(spn, scale=2.0, seed=0, batch=BATCH):
    shape = (batch, len(spn.graph.leaf_regions), spn.num_components)
    return np.random.default_rng(seed).normal(-1, scale, shape).astype(spn.dtype)


@pytest.fixture(params=CASES)
def case(request):
    spn = build(request.param)
    return spn, BruteForce(spn), draw_leaves(spn)


@pytest.fixture(params=MIXTURES)
def mixture(request):
    spn = build(request.param)
    return spn, BruteForce(spn), draw_leaves(spn)


# --- counts and layout ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size, delta", [(28, 7), (32, 8)])
def test_counts_of_the_papers_graph(size, delta):
    spn = SumProductNetwork(poon_domingos(size, size, delta), num_sums=2, num_components=2)
    assert (spn.num_sum_nodes, spn.num_products, spn.num_weights) == (167, 800, 1576)
    assert spn.num_nodes == 32 + 1 + 167  # leaves, the unit node, sums
    assert spn.count_params() == 1576


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3]])
def test_number_of_induced_trees(name):
    assert len(BruteForce(build(name)).nodes) == CASES[name][3]


def test_every_weight_has_one_place(mixture):
    spn, brute, _ = mixture
    places = np.concatenate([level.weights[level.weights >= 0] for level in spn.levels])
    assert sorted(places) == list(range(spn.num_weights))
    assert sum(map(len, brute.groups)) == spn.num_weights
    assert len(brute.groups) == spn.num_sum_nodes


def test_weights_of_every_sum_are_normalised(mixture):
    spn, _, _ = mixture
    for level, log_weights in zip(spn.levels, spn.log_weights(), strict=True):
        weights = np.exp(log_weights)
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
        assert np.array_equal(weights > 0, level.weights >= 0)


def test_the_sum_of_all_trees_is_one(mixture):
    """A normalised SPN: leaves of density one give the root density one."""
    spn, _, leaves = mixture
    np.testing.assert_allclose(spn(np.zeros_like(leaves)), 0, atol=1e-12)


# --- equation (5) -----------------------------------------------------------------------------------------------------

def test_value_is_the_sum_over_induced_trees(case):
    spn, brute, leaves = case
    np.testing.assert_allclose(spn(leaves), brute.log_prob(leaves), rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_value_in_float32(name):
    spn = build(name, dtype="float32")
    leaves = draw_leaves(spn)
    assert spn(leaves).dtype == tf.float32
    np.testing.assert_allclose(spn(leaves), BruteForce(spn).log_prob(leaves), rtol=1e-5)


def test_float64_layer():
    spn = build("2x2")
    assert spn.sum_weights.dtype == "float64"
    assert spn(draw_leaves(spn)).dtype == tf.float64


@pytest.mark.parametrize("magnitude", [3000.0, 1e5])
@pytest.mark.parametrize("name", ["2x2", "2x3", "ternary", "random binary trees"])
def test_large_magnitudes(name, magnitude):
    """The probabilities are far outside float32; their logarithms lose no more than the rounding of a sum."""
    spn = build(name, dtype="float32")
    signs = np.random.default_rng(0).choice([-1, 1], (BATCH, len(spn.graph.leaf_regions), spn.num_components))
    leaves = (magnitude * signs + draw_leaves(spn)).astype(np.float32)
    rounding = np.finfo(np.float32).eps * magnitude * len(spn.graph.leaf_regions) ** 2
    np.testing.assert_allclose(spn(leaves), BruteForce(spn).log_prob(leaves), rtol=0, atol=rounding)


@pytest.mark.parametrize("name", ["2x2", "ternary", "single region, three components", "random binary trees"])
def test_impossible_leaf(name):
    spn = build(name)
    brute, leaves = BruteForce(spn), draw_leaves(spn)
    leaves[:, 0, 1] = -np.inf  # every scope has another component left
    assert np.isfinite(spn(leaves)).all()
    np.testing.assert_allclose(spn(leaves), brute.log_prob(leaves), rtol=1e-12)
    reached, choices = spn.posterior(leaves)
    np.testing.assert_allclose(without_unit(spn, reached), brute.marginals(leaves), rtol=1e-9, atol=1e-12)
    assert all(np.isfinite(choice).all() for choice in choices)
    with tf.GradientTape() as tape:
        value = spn(leaves)
    assert np.isfinite(tf.convert_to_tensor(tape.gradient(value, spn.trainable_variables)[0])).all()


@pytest.mark.parametrize("name", CASES)
def test_impossible_image(name):
    spn = build(name)
    leaves = draw_leaves(spn)
    leaves[1, 0] = -np.inf  # one image of the batch; in most graphs its first leaf region is part of every tree
    expected = BruteForce(spn).log_prob(leaves)
    value = spn(leaves).numpy()
    assert not np.isnan(value).any()
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    leaves[1] = -np.inf
    assert spn(leaves).numpy()[1] == -np.inf


def test_impossible_region_beside_a_possible_one():
    """Regions are alternatives: where all trees through one are impossible, the others still count."""
    a, b, c, ab, bc, root = map(Region, [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
    graph = RegionGraph([a, b, c, ab, bc, root],
                        [Partition(ab, (a, b)), Partition(root, (ab, c)), Partition(root, (a, bc))])
    spn = SumProductNetwork(graph, 2, 2, seed=0, dtype="float64")
    leaves = draw_leaves(spn)
    leaves[:, graph.leaf_regions.index(b)] = -np.inf  # and with it ab; bc is a leaf region
    brute = BruteForce(spn)
    np.testing.assert_allclose(spn(leaves), brute.log_prob(leaves), rtol=1e-12)
    assert np.isfinite(spn(leaves)).all()
    np.testing.assert_allclose(without_unit(spn, spn.posterior(leaves)[0]), brute.marginals(leaves), atol=1e-12)
    by_leaves, by_weights = gradients(spn, tf.constant(leaves))
    np.testing.assert_allclose(tf.reshape(by_leaves, [BATCH, -1]), brute.marginals(leaves)[:, :brute.num_leaves],
                               atol=1e-12)
    np.testing.assert_allclose(by_weights, brute.weight_gradient(leaves), atol=1e-7)


# --- gradients --------------------------------------------------------------------------------------------------------

def test_gradient_of_the_leaves_is_their_posterior(case):
    spn, brute, leaves = case
    leaves = tf.constant(leaves)
    with tf.GradientTape() as tape:
        tape.watch(leaves)
        value = spn(leaves)
    gradient = tape.gradient(value, leaves)
    expected = brute.marginals(leaves)[:, :brute.num_leaves]
    np.testing.assert_allclose(tf.reshape(gradient, [BATCH, -1]), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient, spn.leaf_nodes(spn.posterior(leaves)[0]), rtol=1e-9, atol=1e-12)


def test_gradient_of_the_weights(mixture):
    spn, brute, leaves = mixture
    np.testing.assert_allclose(gradients(spn, tf.constant(leaves))[1], brute.weight_gradient(leaves), atol=1e-7)


# --- the latent variables ---------------------------------------------------------------------------------------------

def test_posterior_of_every_node(case):
    spn, brute, leaves = case
    reached, _ = spn.posterior(leaves)
    np.testing.assert_allclose(without_unit(spn, reached), brute.marginals(leaves), rtol=1e-9, atol=1e-12)


def test_posterior_of_every_child(mixture):
    """P(y_n = m | x, n reached): among the trees through sum n, those that take product m."""
    spn, brute, leaves = mixture
    _, choices = spn.posterior(leaves)
    trees = brute.posterior(leaves)  # [trees, batch]
    for level, choice in zip(spn.levels, choices, strict=True):
        np.testing.assert_allclose(tf.reduce_sum(choice, axis=1), 1, rtol=1e-12)
        for r, m, s in np.ndindex(*level.weights.shape):
            if level.weights[r, m, s] < 0:
                assert not np.any(choice[r, m, s])
                continue
            through = brute.nodes[:, level.first_node - 1 + r * level.num_sums + s]  # less the unit node
            taking = brute.edges[:, level.weights[r, m, s]]
            np.testing.assert_allclose(choice[r, m, s], (taking @ trees) / (through @ trees), rtol=1e-8)


def test_most_probable_tree(case):
    spn, brute, leaves = case
    selected, value = spn.most_probable_tree(leaves)
    terms = brute.log_terms(leaves)
    np.testing.assert_allclose(value, terms.max(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(without_unit(spn, selected), brute.nodes[terms.argmax(axis=0)])


def sample_trees(spn, logits, draws, seed):
    """Samples [draws, nodes] without the unit node's column."""
    uniforms = [tf.random.stateless_uniform([*level.weights.shape[::2], draws], [seed, n], dtype=spn.dtype)
                for n, level in enumerate(spn.levels)]
    logits = [tf.broadcast_to(array, [*array.shape[:3], draws]) for array in logits]
    return without_unit(spn, spn.sample_trees(logits, uniforms, draws))


def assert_distributed(samples, trees, probabilities):
    """Every sample is one of the trees, and the counts pass a chi-square test at four deviations."""
    index = {tree.tobytes(): t for t, tree in enumerate(trees)}
    counts = np.bincount([index[sample.tobytes()] for sample in samples], minlength=len(trees))
    expected = probabilities * len(samples)
    rare = expected < 5
    counts, expected = [np.append(a[~rare], a[rare].sum()) for a in (counts, expected)]
    statistic = np.sum((counts - expected) ** 2 / np.maximum(expected, 1))
    freedom = len(counts) - 1
    assert statistic < freedom + 4 * math.sqrt(2 * freedom), (statistic, freedom)


@pytest.mark.parametrize("name", ["2x2", "2x2, one sum", "2x3, one component", "single region, three components",
                                  "random binary trees", "ternary"])
@pytest.mark.parametrize("given", ["prior", "posterior"])
def test_samples_of_trees(name, given):
    spn = build(name)
    brute = BruteForce(spn)
    leaves = np.zeros_like(draw_leaves(spn)[:1]) if given == "prior" else draw_leaves(spn, 0.5)[:1]
    if given == "prior":
        logits = [log_weights[..., None] for log_weights in spn.log_weights()]
    else:
        logits = spn.upward(leaves)[1]
    samples = sample_trees(spn, logits, draws=20_000, seed=3)
    assert len(np.unique(brute.nodes, axis=0)) == len(brute.nodes)  # a tree is told by its nodes
    assert_distributed(samples, brute.nodes, brute.posterior(leaves)[:, 0])


def test_samples_never_take_an_impossible_product():
    """Even for the uniform's extremes, which lie on the edges of the distribution function."""
    spn = build("ternary", dtype="float32")
    leaves = draw_leaves(spn)
    leaves[:, 0, 0] = -np.inf
    reached, _ = spn.posterior(leaves)
    _, logits = spn.upward(leaves)
    for extreme in (0.0, 1 - 2**-24):
        uniforms = [tf.fill([*level.weights.shape[::2], BATCH], np.float32(extreme)) for level in spn.levels]
        trees = spn.sample_trees(logits, uniforms, BATCH).numpy()
        assert not trees[reached.numpy() == 0].any()
        scopes = [region for region, leaf in zip(spn.graph.leaf_regions, spn.leaf_nodes(trees)[0]) if np.any(leaf)]
        assert sorted(itertools.chain(*(region.scope for region in scopes))) == [0, 1, 2, 3, 4]


def test_single_leaf_has_one_tree():
    spn = build("single region")
    leaves = draw_leaves(spn)
    np.testing.assert_array_equal(spn(leaves), leaves[:, 0, 0])
    assert not spn.weights
    assert spn.posterior(leaves)[1] == []
    np.testing.assert_array_equal(spn.leaf_nodes(spn.sample_trees([], [], BATCH)), np.ones([BATCH, 1, 1]))


# --- the layer --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["2x2", "ternary", "single region", "single region, three components"])
def test_compiled_equals_eager(name):
    spn = build(name, dtype="float32")
    leaves = draw_leaves(spn)

    def everything(leaves):
        reached, _ = spn.posterior(leaves)
        return spn(leaves), reached, spn.most_probable_tree(leaves)
    for compiled, eager in zip(tf.nest.flatten(tf.function(everything, jit_compile=True)(leaves)),
                               tf.nest.flatten(everything(leaves)), strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-6)


def test_batch_of_any_size():
    spn = build("2x2")
    compiled = tf.function(spn, input_signature=[tf.TensorSpec([None, 4, 2], tf.float64)])
    leaves = draw_leaves(spn, batch=7)
    for size in (0, 1, 7):
        np.testing.assert_allclose(compiled(leaves[:size]), spn(leaves)[:size], rtol=1e-12)


def test_gradients_of_a_batch_of_any_size():
    spn = build("2x2")
    compiled = tf.function(lambda leaves: gradients(spn, leaves),
                           input_signature=[tf.TensorSpec([None, 4, 2], tf.float64)])
    leaves = draw_leaves(spn, batch=7)
    for size in (0, 1, 7):
        for found, expected in zip(compiled(leaves[:size]), gradients(spn, tf.constant(leaves[:size])), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 4), (3, 8), (3, 4, 3), (3, 3, 2), (3, 2, 4), (4, 2), (1, 3, 4, 2)])
@pytest.mark.parametrize("method", ["__call__", "posterior", "most_probable_tree"])
def test_wrong_shape_is_refused(shape, method):
    spn = build("2x2", dtype="float32")
    with pytest.raises(InputError) as error:
        getattr(spn, method)(np.zeros(shape, np.float32))
    assert str(error.value) == f"leaf_log_probs has shape {shape}; it must be [batch, 4, 2]"


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None])
@pytest.mark.parametrize("name", ["num_sums", "num_components"])
def test_wrong_size_is_refused(name, value):
    with pytest.raises(InputError, match=f"^{name} is {value!r}; it must be an integer of at least 1$"):
        SumProductNetwork(poon_domingos(2, 2, 1), **{name: value})


@pytest.mark.parametrize("name", ["2x2", "ternary", "single region"])
def test_config_round_trip(name):
    spn = build(name, seed=5)
    leaves = draw_leaves(spn)
    again = SumProductNetwork.from_config(spn.get_config())
    assert again.graph == spn.graph
    assert again.dtype == "float64"
    np.testing.assert_array_equal(again(leaves), spn(leaves))
    other = keras.layers.deserialize(keras.layers.serialize(build(name, seed=6)))
    other.set_weights(spn.get_weights())
    np.testing.assert_array_equal(other(leaves), spn(leaves))


def test_initial_weights_follow_the_seed():
    """Log-weights drawn from N(0, 1)."""
    first, again, other = (SumProductNetwork(poon_domingos(28, 28, 7), seed=s) for s in (0, 0, 1))
    weights = first.sum_weights.numpy()
    np.testing.assert_array_equal(weights, again.sum_weights)
    assert not np.array_equal(weights, other.sum_weights)
    assert abs(weights.mean()) < 4 / math.sqrt(1576)
    assert abs(weights.std() - 1) < 4 / math.sqrt(2 * 1576)


def test_too_many_products_are_refused_before_they_are_laid_out():
    graph = poon_domingos(4, 4, 1)
    with pytest.raises(InputError, match="num_sums is 100000 and num_components 2; .* [0-9,]{12,} products, "):
        SumProductNetwork(graph, num_sums=100_000)
    with pytest.raises(InputError, match="num_sums is 2 and num_components 100000; "):
        SumProductNetwork(graph, num_components=100_000)
