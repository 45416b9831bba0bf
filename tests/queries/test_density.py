"""Densities against exact answers: quadrature over every leaf's code, and every induced tree in turn."""

import math

import numpy as np
from oracles import BruteForce, log_sum_exp
from small_models import MANY, Exact, images, make, mask

from spvae_tf.model.region_graph import random_binary_trees


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
    exact, trees = Exact(model, x, np.ones(x.shape, bool)), BruteForce(model.spn)
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
