"""Samples, missing pixels and reconstructions against exact answers by quadrature and by every induced tree."""

import math
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from oracles import BruteForce
from small_models import MANY, Exact, images, make, mask

from spvae_tf.model.likelihoods import NUM_TRIALS
from spvae_tf.model.region_graph import poon_domingos
from spvae_tf.ops.noise import make_seed, random_bits
from spvae_tf.queries import leaves
from spvae_tf.spvae import SPVAE

# --- new images -------------------------------------------------------------------------------------------------------


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


# --- missing pixels ---------------------------------------------------------------------------------------------------


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
    np.testing.assert_array_equal(grid.inpaint(x, np.ones(x.shape, bool)), x)
    nothing = np.zeros(x.shape, bool)
    prior = Exact(grid, x, nothing)
    np.testing.assert_allclose(grid.inpaint(np.full(x.shape, np.nan), nothing, num_samples=MANY, seed=11),
                               prior.pixels(prior.leaf_mean), atol=0.02)


# --- through latent states --------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("likelihood", ["tied_mixture", "logistic_mixture"])
def test_several_numbers_of_a_pixel_stay_together(likelihood):
    """Images of E[x | z] are put together from leaves of unequal size as their outputs are."""
    model = SPVAE(poon_domingos(3, 5, 2), (3, 5), likelihood, hidden_units=4, latent_dim=2, seed=3)
    rng = np.random.default_rng(4)
    outputs = model.decode(tf.constant(rng.standard_normal(model.noise_shape(1, 6)), tf.float32))
    nothing_seen = model.by_region(tf.zeros([model.num_experts, 6]))
    trees = leaves.draw_trees(model, nothing_seen, random_bits([model.spn.num_sum_nodes, 6], make_seed(5)))
    whole = [leaves.assemble(model, output[:, 0], trees) for output in outputs]
    expected = leaves.assemble(model, model.likelihood.mean(outputs)[:, 0], trees)
    np.testing.assert_allclose(model.likelihood.mean(whole), expected, rtol=1e-5)
    assert np.ptp(expected, axis=1).min() > 0.01

    nothing = np.zeros([1, 15], bool)  # the proposals are the prior's, whatever the noise
    draws = model.inpaint(np.zeros([1, 15], np.float32), nothing, 2000, num_samples=400, seed=1)[0]
    mean = model.inpaint(np.zeros([1, 15], np.float32), nothing, num_samples=400, seed=2)[0]
    np.testing.assert_allclose(tf.reduce_mean(draws, 0), mean, atol=0.06)
