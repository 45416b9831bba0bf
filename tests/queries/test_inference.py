"""The queries of an SPVAE against exact answers: quadrature over every leaf's code, and every induced tree in turn."""

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from test_spn import BruteForce, log_sum_exp, ternary_graph

import spvae_tf
from spvae_tf.errors import InputError
from spvae_tf.model.likelihoods import NUM_TRIALS
from spvae_tf.model.reference import pixel_log_prob
from spvae_tf.model.region_graph import poon_domingos, random_binary_trees
from spvae_tf.spvae import SPVAE

MANY = 4000  # samples, where an estimate has to be close to the exact value


def make(graph, image_shape, likelihood, scale, num_sums=2, seed=5):
    """A model with a one-dimensional code whose VAEs differ, and whose q(z | x) covers p(z | x)."""
    model = SPVAE(graph, image_shape, likelihood, hidden_units=4, latent_dim=1, num_sums=num_sums, seed=seed)
    rng = np.random.default_rng(6)
    biases = 0.7 if likelihood == "continuous" else 0.1
    for network, factor, spread in ((model.encoder, 0.2, 0.1), (model.decoder, scale, biases)):
        for variable in network.trainable_variables:
            is_bias = variable.name == "bias"
            variable.assign(spread * rng.standard_normal(variable.shape) if is_bias else factor * variable)
    return model


def images(model, batch=3):
    """Anywhere for the wide Gaussians, near one half for the Binomials, so that no VAE is out of the question."""
    low, high = (0, 256) if model.likelihood.name == "continuous" else (118, 139)
    return np.random.default_rng(7).integers(low, high, [batch, model.graph.num_variables]).astype(np.float32) / 255


def mask(model, batch=3):
    """Half of the pixels at random; besides, of image 0 no pixel of the first leaf region, of image 1 all of it."""
    observed = np.random.default_rng(8).random([batch, model.graph.num_variables]) < 0.5
    observed[0, model.graph.leaf_regions[0].scope] = False
    observed[1, model.graph.leaf_regions[0].scope] = True
    return observed


class Exact:
    """What a model with a one-dimensional code says, in float64.

    Attributes:
      leaves: log p_l(x_observed) of every leaf, equation (3), [batch, leaf regions, components].
      trees: every induced tree of equation (5).
      leaf_mean, leaf_square: E[mean(x_d | z)] and E[mean(x_d | z)²] under p(z | x_observed), [experts, batch, pixels].
    """

    def __init__(self, model, x, observed):
        self.trees, self.graph = BruteForce(model.spn), model.graph
        z = np.linspace(-8, 8, 1601)
        log_prior = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) + math.log(z[1] - z[0])
        codes = np.tile(z[None, :, None, None], [model.num_experts, 1, 1, 1]).astype(np.float32)
        outputs = model.decode(tf.constant(codes))
        means = model.likelihood.mean(outputs).numpy()[:, :, 0].astype(np.float64)
        leaves, self.leaf_mean, self.leaf_square = [], [], []
        for expert in range(model.num_experts):
            scope = np.array(model.graph.leaf_regions[expert // model.num_components].scope)
            cut = [tf.cast(output[expert, :, :, :len(scope)], tf.float64) for output in outputs]
            pixels = pixel_log_prob(model.likelihood.name, tf.constant(x[:, scope], tf.float64), cut).numpy()
            joint = log_prior[:, None] + np.where(observed[:, scope], pixels, 0).sum(axis=-1)  # [z, batch]
            leaves.append(log_sum_exp(joint))
            weights = np.exp(joint - leaves[-1])
            for moments, power in ((self.leaf_mean, 1), (self.leaf_square, 2)):
                full = np.zeros(x.shape)
                full[:, scope] = np.einsum("zn,zp->np", weights, means[expert, :, :len(scope)]**power)
                moments.append(full)
        self.leaves = np.stack(leaves, 1).reshape(len(x), -1, model.num_components)
        self.leaf_mean, self.leaf_square = np.array(self.leaf_mean), np.array(self.leaf_square)

    @property
    def log_prob(self):
        return self.trees.log_prob(self.leaves)

    def chosen(self):
        """P(leaf in tree | x), [batch, experts]."""
        return self.trees.marginals(self.leaves)[:, :self.trees.num_leaves]

    def pixels(self, moments):
        return np.einsum("ne,enp->np", self.chosen(), moments)


def everything(x):
    return np.ones(x.shape, bool)


GRAPHS = {"Poon-Domingos": (poon_domingos(4, 4, 2), (4, 4)),
          "leaf regions that overlap": (random_binary_trees(8, 2, 2, seed=0), (2, 4))}


@pytest.fixture(scope="module", params=GRAPHS)
def gaussian(request):
    return make(*GRAPHS[request.param], "continuous", 0.6)


@pytest.fixture(scope="module")
def grid():
    return make(*GRAPHS["Poon-Domingos"], "continuous", 0.6)


@pytest.fixture(scope="module")
def binomial():
    """Two leaf regions side by side."""
    return make(poon_domingos(2, 4, 2), (2, 4), "discrete", 0.3)


# --- conditionals -----------------------------------------------------------------------------------------------


def test_marginals_and_conditionals(gaussian):
    x, observed = images(gaussian), mask(gaussian)
    query = ~observed & (np.random.default_rng(9).random(x.shape) < 0.7)
    joint, marginal = Exact(gaussian, x, query | observed).log_prob, Exact(gaussian, x, observed).log_prob
    np.testing.assert_allclose(gaussian.log_prob(x, MANY, observed, seed=1), marginal, atol=0.02)
    unknown = np.where(query | observed, x, np.nan)
    value = gaussian.conditional_log_prob(unknown, query, observed, MANY, seed=1)
    np.testing.assert_allclose(value, joint - marginal, atol=0.02)
    assert np.ptp(joint - marginal) > 0.5
    difference = gaussian.log_prob(x, MANY, query | observed, seed=1) - gaussian.log_prob(x, MANY, observed, seed=1)
    np.testing.assert_array_equal(value, difference)


def test_conditionals_at_the_ends(binomial):
    """Given nothing: the marginal. Of nothing: exactly 0. And what evidence and joint share cancels."""
    x, nothing = images(binomial), np.zeros([3, 8], bool)
    observed = mask(binomial)
    np.testing.assert_array_equal(binomial.conditional_log_prob(x, observed, nothing, 10, seed=2),
                                  binomial.log_prob(x, 10, observed, seed=2))
    np.testing.assert_array_equal(binomial.conditional_log_prob(x, nothing, observed, 10), [0, 0, 0])
    left = np.zeros([3, 8], bool)
    left[:, binomial.graph.leaf_regions[0].scope] = True
    conditional, alone = (binomial.conditional_log_prob(x, ~left, evidence, 5, seed=2) for evidence in (left, nothing))
    posterior = binomial.posterior(x, 5, left, seed=2).leaves.numpy()[:, 0]
    assert np.abs(conditional - alone).max() > 1e-3 and posterior.min(axis=1).max() > 1e-3  # the trees do matter here


# --- sampling ---------------------------------------------------------------------------------------------------


def test_marginals_are_the_frequencies_of_samples(binomial):
    """The probability of a count at one pixel, and of pairs of counts in one leaf region and in two."""
    draws, others = (np.rint(binomial.sample(40_000, mean=False, seed=seed).numpy() * NUM_TRIALS).astype(int)
                     for seed in (3, 30))
    left, right = (list(leaf.scope) for leaf in binomial.graph.leaf_regions)
    checked = 0
    for pixels in ([left[0]], [right[3]], [left[0], left[3]], [left[1], right[2]]):
        # cells that are frequent among other samples, so that none is chosen for its luck among these
        cells = [cell for cell, _ in Counter(map(tuple, others[:, pixels])).most_common(12)]
        counts = Counter(map(tuple, draws[:, pixels]))
        x, observed = np.full([len(cells), 8], np.nan), np.zeros([len(cells), 8], bool)
        x[:, pixels], observed[:, pixels] = np.array(cells) / NUM_TRIALS, True
        p = np.exp(binomial.log_prob(x, MANY, observed, seed=4).numpy().astype(np.float64))
        np.testing.assert_allclose(p, np.exp(Exact(binomial, np.nan_to_num(x), observed).log_prob), rtol=0.03)
        found = np.array([counts[cell] for cell in cells]) / len(draws)
        deviation = (found - p) / np.sqrt(p * (1 - p) / len(draws))
        assert np.abs(deviation).max() < 4, (pixels, deviation)
        checked += len(cells)
    assert checked == 48


def coloured():
    """Two leaf regions side by side whose VAEs have one colour each: a picture tells which leaves its tree ends in."""
    model = make(poon_domingos(2, 4, 2), (2, 4), "continuous", 0.0, num_sums=3)
    colours = np.array([0.2, 0.8, 0.4, 0.6])
    for variable in model.encoder.trainable_variables + model.decoder.trainable_variables:  # q(z | x) = p(z)
        variable.assign(np.zeros(variable.shape))
    logits = np.tile(np.log(colours / (1 - colours))[:, None, None], [1, 1, 4])
    # an o_2 of 2: precision 5
    model.decoder.heads.dense[-1].bias.assign(np.concatenate([logits, 0 * logits + 2]).astype(np.float32))
    return model, colours


def check_trees(pictures, model, colours, probabilities):
    """The leaves that pictures show, both of a picture together, have the probabilities of the trees."""
    found = np.abs(pictures[:, [1, 3], None] - colours).argmin(axis=2)
    exact = Counter()
    for p, nodes in zip(probabilities, BruteForce(model.spn).nodes[:, :4]):
        exact[tuple(np.flatnonzero(nodes))] += p
    counts, n = Counter(map(tuple, found)), len(pictures)
    assert set(counts) == set(exact) and len(exact) == 4
    for pattern, p in exact.items():
        assert abs(counts[pattern] / n - p) < 4 * math.sqrt(p * (1 - p) / n), (pattern, p)
    return exact


def test_sampled_trees_have_their_probabilities():
    model, colours = coloured()
    samples = model.sample(20_000, seed=5).numpy()
    for leaf, column in zip(model.graph.leaf_regions, samples[:, :, None].transpose(1, 0, 2)[[1, 3]]):
        np.testing.assert_array_equal(samples[:, leaf.scope], np.repeat(column, 4, axis=1))
    check_trees(samples, model, colours, np.exp(BruteForce(model.spn).log_terms(np.zeros([1, 2, 2]))[:, 0]))


def test_filled_in_trees_have_their_posterior_probabilities():
    """What is seen of the left leaf region changes the probabilities of the right one's VAEs, through the trees."""
    model, colours = coloured()
    x, observed = np.full([1, 8], 0.9, np.float32), np.zeros([1, 8], bool)
    observed[0, [0, 4]] = True
    draws = model.inpaint(x, observed, 20_000, num_samples=1, seed=5).numpy()[0]
    leaves = np.zeros([1, 2, 2])
    leaves[0, 0] = -0.5 * 5 * 2 * (0.9 - colours[:2])**2  # two pixels of precision 5, up to a constant
    trees = BruteForce(model.spn)
    posterior = check_trees(draws, model, colours, trees.posterior(leaves)[:, 0])
    assert abs(sum(p for (_, right), p in posterior.items() if right == 2)
               - trees.marginals(0 * leaves)[0, 2]) > 0.02


def test_samples_stay_where_they_should(binomial, grid):
    means, draws = binomial.sample(50, seed=6).numpy(), binomial.sample(50, mean=False, seed=6).numpy()
    assert means.shape == draws.shape == (50, 8) and means.dtype == draws.dtype == np.float32
    assert 0 <= min(means.min(), draws.min()) and max(means.max(), draws.max()) <= 1
    np.testing.assert_allclose(draws, np.rint(draws * NUM_TRIALS) / NUM_TRIALS, rtol=2e-7)
    np.testing.assert_allclose(draws, means, atol=6 * 0.5 / math.sqrt(NUM_TRIALS))
    means, draws = grid.sample(200, seed=6).numpy(), grid.sample(200, mean=False, seed=6).numpy()
    assert 0 <= means.min() and means.max() <= 1
    assert draws.min() < 0 and draws.max() > 1  # as documented: deviations up to 1, nothing clipped
    assert abs((draws - means).mean()) < 4 / math.sqrt(draws.size)


# --- missing pixels ---------------------------------------------------------------------------------------------


def test_inpainting_recovers_the_posterior(gaussian):
    """Its own samples, half hidden: mean and second moment of what is hidden, against quadrature."""
    x = np.clip(gaussian.sample(3, mean=False, seed=7).numpy(), 0, 1)
    observed = mask(gaussian)
    exact = Exact(gaussian, x, observed)
    mean, square = exact.pixels(exact.leaf_mean), exact.pixels(exact.leaf_square)
    unknown = np.where(observed, x, np.nan)
    estimate = gaussian.inpaint(unknown, observed, num_samples=MANY, seed=8).numpy()
    np.testing.assert_array_equal(estimate[observed], x[observed])
    np.testing.assert_allclose(estimate[~observed], mean[~observed], atol=0.01)
    draws = gaussian.inpaint(unknown, observed, 2000, num_samples=1000, seed=9).numpy()
    assert draws.shape == (3, 2000, x.shape[1])
    hidden = ~observed
    np.testing.assert_array_equal(draws[:, 0][observed], x[observed])
    np.testing.assert_array_equal(draws[:, -1][observed], x[observed])
    deviation = np.sqrt(square - mean**2)[hidden]
    assert np.abs((draws.mean(axis=1) - mean)[hidden] / deviation).max() < 4 / math.sqrt(2000) + 3 / math.sqrt(1000)
    np.testing.assert_allclose(draws.std(axis=1)[hidden], deviation, rtol=0.12, atol=0.003)
    assert np.abs(mean - Exact(gaussian, x, np.zeros(x.shape, bool)).pixels(exact.leaf_mean))[hidden].max() > 0.02


def test_draws_of_pixels(binomial):
    """p(x | z) on top of the codes: for the Binomial the variance of the counts adds to that of their means."""
    x, observed = images(binomial), mask(binomial)
    exact = Exact(binomial, x, observed)
    mean, square = exact.pixels(exact.leaf_mean), exact.pixels(exact.leaf_square)
    draws = binomial.inpaint(x, observed, 3000, mean=False, num_samples=1000, seed=10).numpy()
    hidden = ~observed
    spread = np.sqrt(square - mean**2 + (mean - square) / NUM_TRIALS)
    np.testing.assert_allclose(draws.std(axis=1)[hidden], spread[hidden], rtol=0.12)
    np.testing.assert_array_equal(draws[:, 0][observed], x[observed])
    assert 0 <= draws.min() and draws.max() <= 1


def test_inpainting_all_and_nothing(grid):
    x = images(grid)
    np.testing.assert_array_equal(grid.inpaint(x, everything(x)), x)
    nothing = np.zeros(x.shape, bool)
    prior = Exact(grid, x, nothing)
    np.testing.assert_allclose(grid.inpaint(np.full(x.shape, np.nan), nothing, num_samples=MANY, seed=11),
                               prior.pixels(prior.leaf_mean), atol=0.02)


# --- latent states ----------------------------------------------------------------------------------------------


def test_latent_states_of_given_leaves():
    """Every probability of a Posterior and of the embedding, by adding up the trees that have it."""
    for graph in (ternary_graph(), random_binary_trees(4, 2, 2, seed=1)):
        model = SPVAE(graph, (1, graph.num_variables), "continuous", hidden_units=1, latent_dim=1, num_sums=2, seed=2)
        spn, trees = model.spn, BruteForce(model.spn)
        leaves = np.random.default_rng(3).standard_normal([4, len(graph.leaf_regions), 2]).astype(np.float32)
        trees_of = trees.posterior(leaves)  # [trees, batch]
        nodes = trees.marginals(leaves)
        edges = trees_of.T @ trees.edges
        states = model._states(tf.constant(leaves))
        close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6)  # noqa: E731
        close(states.leaves, nodes[:, :trees.num_leaves].reshape(4, -1, 2))
        first = trees.num_leaves
        partitions = np.zeros([4, len(graph.partitions)])
        for level, children, sums in zip(spn.levels, states.children, states.sums):
            count = sums.shape[1] * sums.shape[2]
            close(sums, nodes[:, first:first + count].reshape(sums.shape))
            first += count
            close(children.numpy().sum(axis=-1), np.ones(children.shape[:3]))
            for r, m, s in zip(*np.nonzero(level.weights >= 0)):
                close(children[:, r, s, m] * sums[:, r, s], edges[:, level.weights[r, m, s]])
            for r, region in enumerate(level.regions):  # the products in order are the partitions in order
                products = [p for p in graph.partitions_of(region)
                            for _ in range(math.prod(2 for _ in p.children))]
                for m, partition in enumerate(products):
                    partitions[:, graph.partitions.index(partition)] += edges[:, level.weights[r, m]].sum(axis=1)
        close(states.partitions, partitions)
        black = tf.zeros([4, graph.num_variables])
        features = model._features(black, tf.constant(leaves)).numpy()
        experts = model.num_experts
        close(features[:, experts:2 * experts], nodes[:, :trees.num_leaves])
        close(features[:, 2 * experts:], edges)
        codes = model.encode(black)[0].numpy()[:, :, 0].T
        close(features[:, :experts], codes)


def test_posterior_of_a_mixture_without_partitions():
    """The largest step gives a single region, whose sum mixes two VAEs."""
    model = SPVAE(poon_domingos(2, 2, 2), (2, 2), "continuous", hidden_units=2, latent_dim=1, num_sums=1, seed=0)
    leaves = np.log([[[0.2, 0.6]], [[0.5, 0.1]]]).astype(np.float32)
    weights = np.array([0.25, 0.75])
    model.spn.sum_weights.assign(np.log(weights))
    states = model._states(tf.constant(leaves))
    expected = weights * np.exp(leaves[:, 0]) / (weights * np.exp(leaves[:, 0])).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(states.leaves.numpy()[:, 0], expected, rtol=1e-5)
    assert states.partitions.shape == (2, 0)
    assert model.posterior(np.zeros([3, 4], np.float32), 4, seed=0).partitions.shape == (3, 0)


def test_posterior_of_images(gaussian):
    x, observed = images(gaussian), mask(gaussian)
    posterior = gaussian.posterior(np.where(observed, x, np.nan), MANY, observed, seed=12)
    exact = Exact(gaussian, x, observed).chosen()
    np.testing.assert_allclose(posterior.leaves.numpy().reshape(3, -1), exact, atol=0.01)
    assert exact.max(axis=1).min() < 1 - 1e-3
    root = [gaussian.graph.partitions.index(p) for p in gaussian.graph.partitions_of(gaussian.graph.root)]
    np.testing.assert_allclose(posterior.partitions.numpy()[:, root].sum(axis=1), [1, 1, 1], rtol=1e-5)


def test_most_probable_tree(gaussian):
    x, observed = images(gaussian), mask(gaussian)
    tree = gaussian.most_probable_tree(np.where(observed, x, np.nan), MANY, observed, seed=13)
    exact = Exact(gaussian, x, observed)
    terms = exact.trees.log_terms(exact.leaves)
    np.testing.assert_allclose(tree.log_prob, terms.max(axis=0), atol=0.02)
    best = exact.trees.nodes[terms.argmax(axis=0)]
    np.testing.assert_array_equal(np.delete(tree.nodes, exact.trees.num_leaves, axis=1), best)
    leaves = best[:, :exact.trees.num_leaves]
    np.testing.assert_array_equal(tree.leaves.numpy().reshape(3, -1), leaves)
    seen = np.array([observed[:, leaf.scope].any(axis=1) for leaf in gaussian.graph.leaf_regions]).repeat(2, axis=0)
    codes = np.where(seen[..., None], gaussian.encode(tf.constant(x), observed)[0], np.float32(0))
    means = gaussian.likelihood.mean(gaussian.decode(tf.constant(codes)[:, None])).numpy()
    picture = np.zeros(x.shape)
    for image, expert in np.argwhere(leaves):
        scope = gaussian.graph.leaf_regions[expert // 2].scope
        picture[image, list(scope)] = means[expert, 0, image, :len(scope)]
    np.testing.assert_allclose(tree.reconstruction, picture, rtol=1e-5)


# --- codes ------------------------------------------------------------------------------------------------------


def test_reconstructions_and_paths_between_them(grid):
    x0, x1 = images(grid, 6)[:3], images(grid, 6)[3:]
    path = grid.interpolate(x0, x1, steps=3, num_samples=50, seed=14).numpy()
    np.testing.assert_allclose(path[:, 0], grid.reconstruct(x0, 50, seed=14), atol=1e-6)
    np.testing.assert_allclose(path[:, 2], grid.reconstruct(x1, 50, seed=14), atol=1e-6)
    codes = [grid.encode(tf.constant(x))[0].numpy() for x in (x0, x1)]
    chosen = [grid.posterior(x, 50, seed=14).leaves.numpy().reshape(3, -1) for x in (x0, x1)]
    means = grid.likelihood.mean(grid.decode(tf.constant(0.5 * (codes[0] + codes[1]))[:, None])).numpy()[:, 0]
    picture = np.zeros(x0.shape)
    for expert in range(grid.num_experts):
        scope = list(grid.graph.leaf_regions[expert // 2].scope)
        picture[:, scope] += (0.5 * (chosen[0] + chosen[1]))[:, expert, None] * means[expert][:, :len(scope)]
    np.testing.assert_allclose(path[:, 1], picture, rtol=1e-5)
    assert 0 <= path.min() and path.max() <= 1 and np.abs(path[:, 0] - path[:, 2]).max() > 0.02


def test_embeddings_have_a_fixed_length_and_repeat(grid):
    x = images(grid)
    features = grid.embed(x).numpy()
    assert features.shape == (3, 2 * grid.num_experts + grid.spn.num_weights)
    np.testing.assert_array_equal(grid.embed(x), features)
    vae = spvae_tf.build_model("VAE", (4, 4), "continuous", hidden_units=3, latent_dim=5)
    np.testing.assert_allclose(vae.embed(x), vae.encode(tf.constant(x))[0][0], atol=1e-5)


# --- scores -----------------------------------------------------------------------------------------------------


def test_outlier_scores(grid):
    """The heat of a leaf region is its own marginal, which `log_prob` gives from the same samples."""
    x = images(grid)
    score, heat = grid.outlier_score(x, 100, seed=15)
    np.testing.assert_array_equal(score, -grid.log_prob(x, 100, seed=15).numpy())
    for leaf in grid.graph.leaf_regions:
        observed = np.zeros(x.shape, bool)
        observed[:, leaf.scope] = True
        marginal = grid.log_prob(x, 100, observed, seed=15).numpy()
        np.testing.assert_allclose(heat.numpy()[:, leaf.scope].sum(axis=1), -marginal, rtol=1e-4)
    strange = x.copy()
    scope = list(grid.graph.leaf_regions[2].scope)
    strange[:, scope] = np.round(strange[:, scope])
    changed = grid.outlier_score(strange, 100, seed=15).heat.numpy() - heat.numpy()
    assert (np.abs(changed[:, scope]) > 1e-3).all() and np.abs(np.delete(changed, scope, axis=1)).max() < 1e-5


def test_heat_where_leaf_regions_overlap():
    """Each region's mixture given that the tree uses it, and the trees' average of that at a pixel."""
    model = make(random_binary_trees(4, 1, 2, seed=3), (2, 2), "continuous", 0.6)
    x = images(model)
    exact, trees = Exact(model, x, everything(x)), BruteForce(model.spn)
    prior = trees.marginals(np.zeros([1, *exact.leaves.shape[1:]]))[0, :trees.num_leaves].reshape(-1, 2)
    assert 0.05 < prior.sum(axis=1).min() < 0.95
    expected = np.zeros(x.shape)
    for leaf, p, log_probs in zip(model.graph.leaf_regions, prior, exact.leaves.transpose(1, 0, 2)):
        marginal = log_sum_exp((np.log(p / p.sum()) + log_probs).T)
        expected[:, leaf.scope] -= (p.sum() * marginal / len(leaf.scope))[:, None]
    np.testing.assert_allclose(model.outlier_score(x, MANY, seed=16).heat, expected, atol=0.01)


def test_standard_error_is_that_of_repeated_estimates(grid):
    """One image four hundred times over: the spread of the estimates is what each of them says it is."""
    x = np.repeat(images(grid)[:1], 400, axis=0)
    for observed in (None, np.repeat(mask(grid)[:1], 400, axis=0)):
        report = grid.diagnose(x, 50, observed, seed=17)
        spread, said = report.log_prob.numpy().std(ddof=1), report.standard_error.numpy()
        assert 0.85 < math.sqrt((said**2).mean()) / spread < 1.15, (said.mean(), spread)
        assert spread > 0.005
    np.testing.assert_array_equal(grid.diagnose(x[:2], 50, np.zeros([2, 16], bool)).standard_error, [0, 0])


def test_ladder_of_bounds(grid):
    x = images(grid)
    report = grid.diagnose(x, 100, seed=18)
    np.testing.assert_array_equal(report.num_samples, np.repeat([[1, 2, 4, 8, 16, 32, 64, 100]], 3, axis=0))
    for rung, k in enumerate(report.num_samples[0].numpy()):
        np.testing.assert_array_equal(report.bounds[:, rung], grid.log_prob(x, int(k), seed=18))
    np.testing.assert_array_equal(report.bounds[:, -1], report.log_prob)
    _, sizes = grid.estimate(x, 100, seed=18)
    np.testing.assert_array_equal(report.effective_sample_size, sizes)
    bounds = report.bounds.numpy()
    for tolerance in (0.01, 0.1, 1e3):
        found = grid.diagnose(x, 100, tolerance=tolerance, seed=18).levelled_off.numpy()
        for image, k in enumerate(found):
            far = np.abs(bounds[image] - bounds[image, -1]) > tolerance
            after = np.flatnonzero(far).max() + 1 if far.any() else 0
            assert k == report.num_samples[image, after]
    assert (found == 1).all()


# --- seeds, batches, refusals -----------------------------------------------------------------------------------


def test_seeds(binomial):
    x, observed = images(binomial), mask(binomial)
    for query in (lambda seed: binomial.sample(4, mean=False, seed=seed),
                  lambda seed: binomial.inpaint(x, observed, seed=seed),
                  lambda seed: binomial.inpaint(x, observed, 2, False, seed=seed),
                  lambda seed: binomial.conditional_log_prob(x, ~observed, observed, 3, seed)):
        first = query(1).numpy()
        np.testing.assert_array_equal(query(1), first)
        assert (query(2).numpy() != first).any() and (query(None).numpy() != query(None).numpy()).any()


def test_more_images_than_a_batch(binomial):
    """Every batch has its own noise, the last is cut to size, and images stay in their places."""
    x, observed = images(binomial, 4), mask(binomial, 4)
    many, seen = np.tile(x, [52, 1])[:205], np.tile(observed, [52, 1])[:205]
    value = binomial.inpaint(many, seen, num_samples=400, seed=19).numpy()
    assert value.shape == (205, 8)
    expected = np.tile(binomial.inpaint(x, observed, num_samples=MANY, seed=19), [52, 1])[:205]
    np.testing.assert_allclose(value, expected, atol=0.05)
    posterior = binomial.posterior(many, 50, seen, seed=20)
    assert posterior.leaves.shape == (205, 2, 2) and posterior.partitions.shape == (205, 1)
    copies = posterior.leaves.numpy()[[1, 97, 101, 201]]  # of one image, in three batches at the same place but once
    assert len(np.unique(copies[:, 0, 0])) == 4 and np.ptp(copies, axis=0).max() < 0.3
    samples = binomial.sample(1003, seed=21).numpy()
    assert samples.shape == (1003, 8) and len(np.unique(samples[:, 0])) > 900


def test_numpy_integers_count(binomial):
    x, observed = images(binomial), mask(binomial)
    k, two = np.int64(3), np.int32(2)
    np.testing.assert_array_equal(binomial.log_prob(x, k, seed=1), binomial.log_prob(x, 3, seed=1))
    np.testing.assert_array_equal(binomial.diagnose(x, k, seed=1).bounds, binomial.diagnose(x, 3, seed=1).bounds)
    np.testing.assert_array_equal(binomial.inpaint(x, observed, two, num_samples=k, seed=1),
                                  binomial.inpaint(x, observed, 2, num_samples=3, seed=1))
    assert binomial.sample(two).shape == (2, 8) and binomial.interpolate(x, x, two).shape == (3, 2, 8)


def test_no_images(binomial):
    x, observed = np.zeros([0, 8]), np.zeros([0, 8], bool)
    assert binomial.inpaint(x, observed).shape == (0, 8)
    assert binomial.inpaint(x, observed, 2, mean=False).shape == (0, 2, 8)
    assert binomial.conditional_log_prob(x, observed, observed).shape == (0,)
    assert binomial.embed(x).shape[0] == 0
    assert binomial.interpolate(x, x, 3).shape == (0, 3, 8)
    assert binomial.most_probable_tree(x).reconstruction.shape == (0, 8)
    assert binomial.outlier_score(x).heat.shape == (0, 8)
    assert binomial.diagnose(x, 5).bounds.shape == (0, 4)


GOOD, SEEN = np.full([2, 8], 0.5), np.ones([2, 8], bool)
REFUSED = {
    "NaN in an observed pixel": (lambda m: m.inpaint(np.full([2, 8], np.nan), SEEN), "NaN at pixel 0"),
    "pixels above 1": (lambda m: m.posterior(GOOD + 1), "must lie in [0, 1]"),
    "integer images": (lambda m: m.embed(SEEN.astype(int)), "floating point"),
    "mask of another shape": (lambda m: m.inpaint(GOOD, SEEN[:, :7]), "bool of shape (2, 8)"),
    "mask of one image": (lambda m: m.inpaint(GOOD, SEEN[0]), "bool of shape (2, 8)"),
    "mask of floats": (lambda m: m.posterior(GOOD, observed=GOOD), "observed is float64"),
    "ragged mask": (lambda m: m.inpaint(GOOD, [[True], [True, False]]), "observed is no array"),
    "query of integers": (lambda m: m.conditional_log_prob(GOOD, SEEN.astype(int), ~SEEN), "query is int64"),
    "evidence of another shape": (lambda m: m.conditional_log_prob(GOOD, ~SEEN, SEEN[:1]), "evidence is bool"),
    "masks that overlap": (lambda m: m.conditional_log_prob(GOOD, SEEN, SEEN), "pixel 0 of image 0"),
    "no samples": (lambda m: m.inpaint(GOOD, SEEN, num_samples=0), "num_samples is 0"),
    "no draws": (lambda m: m.inpaint(GOOD, SEEN, 0), "num_draws is 0"),
    "half an image": (lambda m: m.sample(0.5), "n is 0.5"),
    "negative seed": (lambda m: m.sample(1, seed=-1), "seed is -1"),
    "one step": (lambda m: m.interpolate(GOOD, GOOD, 1), "at least 2 steps"),
    "unequal ends": (lambda m: m.interpolate(GOOD, GOOD[:1]), "equal shapes"),
    "no tolerance": (lambda m: m.diagnose(GOOD, tolerance=0), "tolerance is 0"),
    "tolerance of text": (lambda m: m.diagnose(GOOD, tolerance="a"), "tolerance is 'a'"),
    "spread of one sample": (lambda m: m.diagnose(GOOD, 1), "num_samples is 1"),
    "ragged images": (lambda m: m.inpaint([[0.5], [0.5, 0.5]], SEEN), "images are no array"),
    "images of another width": (lambda m: m.inpaint(GOOD[:, :5], SEEN), "the model takes [batch, 8]"),
    "ends of another width": (lambda m: m.interpolate(GOOD[:, :5], GOOD[:, :5]), "the model takes [batch, 8]"),
    "ragged images to split": (lambda m: m.conditional_log_prob([[0.5], [0.5, 0.5]], SEEN, ~SEEN), "no array"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_with_one_line(case, binomial):
    query, message = REFUSED[case]
    with pytest.raises(InputError) as caught:
        query(binomial)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["continuous", "discrete"])
@pytest.mark.parametrize("name", ["SPVAE", "VAE", "Conv-SPVAE", "Conv-VAE"])
def test_every_query_of_the_four_models(name, likelihood):
    model = spvae_tf.build_model(name, (6, 5), likelihood, hidden_units=4, latent_dim=2, delta=3)
    x, observed = images(model), mask(model)
    unknown = np.where(observed, x, np.nan)
    assert np.isfinite(model.sample(3)).all() and np.isfinite(model.sample(3, mean=False)).all()
    for answer in (model.inpaint(unknown, observed), model.inpaint(unknown, observed, 2, False)[:, 0]):
        np.testing.assert_array_equal(answer.numpy()[observed], x[observed])
    for answer in (model.conditional_log_prob(x, ~observed, observed), model.posterior(unknown, observed=observed),
                   model.most_probable_tree(unknown, observed=observed), model.embed(x), model.reconstruct(x),
                   model.interpolate(x, x[::-1]), model.outlier_score(x), model.diagnose(unknown, 9, observed)):
        assert all(np.isfinite(part).all() and len(part) == 3 for part in tf.nest.flatten(answer))


def test_the_document_names_functions_that_exist():
    """Every `module.py`: `name`, … of docs/model.md."""
    text = (Path(__file__).parents[2] / "docs" / "model.md").read_text(encoding="utf-8")
    found = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", text)
    assert len(found) > 25
    for module, names in found:
        source = (Path(spvae_tf.__file__).parent / module).read_text(encoding="utf-8")
        for name in re.findall(r"\w+", names):
            assert re.search(rf"(def|class) {name}\b", source), (module, name)
