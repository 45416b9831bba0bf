"""Latent states against every induced tree in turn, and embeddings."""

import math

import numpy as np
import tensorflow as tf
from oracles import BruteForce, ternary_graph
from small_models import MANY, Exact, images, mask

import spvae_tf
from spvae_tf.model.region_graph import poon_domingos, random_binary_trees
from spvae_tf.queries import latent
from spvae_tf.spvae import SPVAE


def test_latent_states_of_given_leaves():
    """Every probability of a Posterior and of the embedding, by adding up the trees that have it."""
    for graph in (ternary_graph(), random_binary_trees(4, 2, 2, seed=1)):
        model = SPVAE(graph, (1, graph.num_variables), "continuous", hidden_units=1, latent_dim=1, num_sums=2, seed=2)
        spn, trees = model.spn, BruteForce(model.spn)
        leaves = np.random.default_rng(3).standard_normal([4, len(graph.leaf_regions), 2]).astype(np.float32)
        trees_of = trees.posterior(leaves)  # [trees, batch]
        nodes = trees.marginals(leaves)
        edges = trees_of.T @ trees.edges
        states = latent.states(model, tf.constant(leaves))
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
        features = latent.features(model, black, tf.constant(leaves)).numpy()
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
    states = latent.states(model, tf.constant(leaves))
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


def test_embeddings_have_a_fixed_length_and_repeat(grid):
    x = images(grid)
    features = grid.embed(x).numpy()
    assert features.shape == (3, 2 * grid.num_experts + grid.spn.num_weights)
    np.testing.assert_array_equal(grid.embed(x), features)
    vae = spvae_tf.build_model("VAE", (4, 4), "continuous", hidden_units=3, latent_dim=5)
    np.testing.assert_allclose(vae.embed(x), vae.encode(tf.constant(x))[0][0], atol=1e-5)
