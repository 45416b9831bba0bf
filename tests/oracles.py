"""Exact answers by the definitions, in float64: every induced tree of equation (5), one by one, and equation (3) by
quadrature over one-dimensional codes; the models they are for."""

import functools
import itertools
import math

import numpy as np
import tensorflow as tf

from spvae_tf.model.reference import PlainSPVAE
from spvae_tf.model.region_graph import Partition, Region, RegionGraph, poon_domingos, single_region
from spvae_tf.spvae import SPVAE


def ternary_graph():
    """A ternary next to a binary partition, children of unequal height, and unequal regions on one level."""
    a, b, c, d, e = [Region((i,)) for i in range(5)]
    ab, cde, root = Region((0, 1)), Region((2, 3, 4)), Region((0, 1, 2, 3, 4))
    partitions = [Partition(ab, (a, b)), Partition(cde, (c, d, e)), Partition(root, (ab, cde)),
                  Partition(root, (a, b, cde)), Partition(root, (ab, c, d, e))]
    return RegionGraph([a, b, c, d, e, ab, cde, root], partitions)


def induced_trees(graph, num_sums, num_components):
    """All induced trees of the SPN of section 3.3, by the definition: one child per sum, all children of a product.

    A node is (region, number). A sum's products are numbered in the order of the region's partitions and, within
    one, of the cross product of the children's nodes; a root without partitions mixes its leaves.

    Args:
      graph, num_sums, num_components: of the SPN.

    Returns:
      list of (edges, nodes): frozensets of (sum node, product number) and of nodes.
    """
    def count(region):
        if graph.partitions_of(region):
            return 1 if region == graph.root else num_sums
        return num_components

    def below(node):
        region, _ = node
        if not graph.partitions_of(region):
            return [(frozenset(), frozenset([node]))]
        found = []
        for number, product in enumerate(products(region)):
            for trees in itertools.product(*map(below, product)):
                found.append((frozenset([(node, number)]).union(*(edges for edges, _ in trees)),
                              frozenset([node]).union(*(nodes for _, nodes in trees))))
        return found

    def products(region):
        for partition in graph.partitions_of(region):
            yield from itertools.product(*([(child, n) for n in range(count(child))] for child in partition.children))

    if not graph.partitions_of(graph.root) and num_components > 1:
        leaves = [(graph.root, n) for n in range(num_components)]
        return [(frozenset([(("root sum", 0), n)]), frozenset([("root sum", 0), leaf]))
                for n, leaf in enumerate(leaves)]
    return below((graph.root, 0))


class BruteForce:
    """Equation (5) of a layer, term by term: log-terms, their sum, and what follows from it.

    Args:
      spn: SumProductNetwork, of which it takes the sum weights and where each one lies in their vector.
    """

    def __init__(self, spn):
        graph, components = spn.graph, spn.num_components
        rows = {(region, n): i * components + n
                for i, region in enumerate(graph.leaf_regions) for n in range(components)}
        self.groups, places = [], {}  # the weights of one sum; (sum node, product number) -> place of the weight
        for level in spn.levels:
            for r, s in np.ndindex(len(level.regions), level.num_sums):
                node = (level.regions[r] if graph.levels else "root sum", s)
                rows[node] = level.first_node + r * level.num_sums + s
                weights = [w for w in level.weights[r, :, s] if w >= 0]
                self.groups.append(weights)
                places |= {(node, number): w for number, w in enumerate(weights)}
        trees = induced_trees(graph, spn.num_sums, components)
        self.edges = np.zeros([len(trees), spn.num_weights])
        nodes_of = np.zeros([len(trees), spn.num_nodes])
        for t, (edges, nodes) in enumerate(trees):
            self.edges[t, [places[edge] for edge in edges]] = 1
            nodes_of[t, [rows[node] for node in nodes]] = 1
        self.nodes = without_unit(spn, nodes_of.T)
        self.num_leaves = len(graph.leaf_regions) * components
        self.weights = np.asarray(spn.sum_weights, np.float64) if spn.num_weights else np.zeros(0)

    def log_terms(self, leaves, weights=None):
        """log of prod w_nc prod p_l(x_l) of each tree, [trees, batch]; leaves [batch, regions, components]."""
        weights = self.weights if weights is None else weights
        log_w = np.array(weights, np.float64)
        for group in self.groups:
            log_w[group] -= log_sum_exp(log_w[group])
        leaves = np.asarray(leaves, np.float64).reshape(len(leaves), -1)
        impossible = np.isneginf(leaves) @ self.nodes[:, :self.num_leaves].T > 0
        finite = np.where(np.isneginf(leaves), 0, leaves)
        log_terms = (self.edges @ log_w)[:, None] + self.nodes[:, :self.num_leaves] @ finite.T
        return np.where(impossible.T, -np.inf, log_terms)

    def log_prob(self, leaves, weights=None):
        return log_sum_exp(self.log_terms(leaves, weights))

    def weight_gradient(self, leaves):
        """Differences of the batch's log-likelihood, added up, in every sum weight."""
        return [(self.log_prob(leaves, self.weights + h) - self.log_prob(leaves, self.weights - h)).sum() / 2e-6
                for h in 1e-6 * np.eye(len(self.weights))]

    def posterior(self, leaves):
        """P(tree | x), [trees, batch]."""
        return np.exp(self.log_terms(leaves) - self.log_prob(leaves))

    def marginals(self, leaves):
        """P(node in induced tree | x), [batch, nodes but the unit node]."""
        return self.posterior(leaves).T @ self.nodes


def without_unit(spn, nodes):
    """[nodes, batch] -> [batch, nodes], less the unit node, which stands for the children that a product lacks."""
    unit = len(spn.graph.leaf_regions) * spn.num_components
    return np.ascontiguousarray(np.delete(np.asarray(nodes).T, unit, axis=1))


def log_sum_exp(terms):
    """Over the first axis; log 0 where all are log 0."""
    top = terms.max(axis=0)
    top = np.where(np.isneginf(top), 0, top)
    with np.errstate(divide="ignore"):
        return top + np.log(np.exp(terms - top).sum(axis=0))


# --- leaves with a one-dimensional code -------------------------------------------------------------------------------

def quadrature(plain, x, observed=None):
    """log p(z) p(x_observed | z) dz of every expert at points z, whose log-sum-exp is the integral of equation (3).

    Args:
      plain: PlainSPVAE with latent_dim 1.
      x: [batch, pixels].
      observed: bool [batch, pixels], or None.

    Yields:
      for each expert (its pixels; its outputs, float64 [z, 1, pixels]; log-terms [z, batch]).
    """
    z = np.linspace(-12, 12, 4001)
    log_prior = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) + math.log(z[1] - z[0])
    observed = np.ones(x.shape, bool) if observed is None else observed
    for number, expert in enumerate(plain.experts):
        scope = np.array(plain.graph.leaf_regions[number // plain.num_components].scope)
        outputs = expert.decode(tf.constant(z[:, None], tf.float32))
        outputs = [tf.cast(output, tf.float64)[:, None] for output in outputs]
        pixels = plain.pixel_log_probs(tf.constant(x[:, scope], tf.float64), *outputs).numpy()
        yield scope, outputs, log_prior[:, None] + np.where(observed[:, scope], pixels, 0).sum(axis=-1)


def exact_log_prob(model, plain, x, observed=None):
    """log p_SP(x_observed), equation (6), of a model and its plain twin: [batch]."""
    leaves = np.stack([log_sum_exp(terms) for *_, terms in quadrature(plain, x, observed)], axis=1)
    return BruteForce(model.spn).log_prob(leaves.reshape(len(x), -1, model.num_components))


# --- models that have them --------------------------------------------------------------------------------------------

BATCH = 4
MODELS = ["VAE", "VAE, discrete", "SPVAE", "SPVAE, uneven", "Conv-SPVAE, uneven"]


def twin(model):
    """The plain implementation with a model's weights."""
    plain = PlainSPVAE(model)
    plain.copy_weights(model)
    return plain


@functools.cache
def models(name):
    """A model with a one-dimensional code and its plain twin."""
    graph, image_shape, likelihood, architecture = {
        "VAE": (single_region(6), (2, 3), "continuous", "dense"),
        "VAE, discrete": (single_region(6), (2, 3), "discrete", "dense"),
        "SPVAE": (poon_domingos(4, 4, 2), (4, 4), "continuous", "dense"),
        "SPVAE, uneven": (poon_domingos(6, 5, 4), (6, 5), "discrete", "dense"),
        "Conv-SPVAE, uneven": (poon_domingos(3, 5, 3), (3, 5), "continuous", "conv_leaf"),
    }[name]
    num_components = 1 if len(graph.regions) == 1 else 2
    model = SPVAE(graph, image_shape, likelihood, architecture, hidden_units=4, latent_dim=1, num_sums=2,
                  num_components=num_components, seed=8)
    rng = np.random.default_rng(6)
    # weak enough that q(z | x) covers p(z | x), as importance sampling needs and training brings about
    for network, scale in ((model.encoder, 0.3), (model.decoder, 0.3 if likelihood == "continuous" else 0.1)):
        for variable in network.trainable_variables:
            is_bias = variable.name == "bias"
            variable.assign(0.2 * rng.standard_normal(variable.shape) if is_bias else scale * variable)
    return model, twin(model)


def images(model):
    rng = np.random.default_rng(7)
    return rng.integers(80, 176, [BATCH, math.prod(model.image_shape)]).astype(np.float32) / 255


def deviation(effective_sizes):
    """A generous standard deviation of an estimate of log p: 1/√ESS of each leaf, all leaves together."""
    worst = np.max(1 / np.asarray(effective_sizes), axis=-1)
    return np.sqrt(worst.sum(axis=-1))


def bound_draws(model, x, num_samples, draws, seed):
    """Independent draws of L̂_SP,k for one image: [draws], float64."""
    noise = tf.random.stateless_normal(model.noise_shape(num_samples, draws), [seed, num_samples])
    x = tf.repeat(tf.constant(x)[None], draws, axis=0)
    return model.bound(x, model.log_base(x), noise).numpy().astype(np.float64)


def standard_error(draws):
    return draws.std() / math.sqrt(len(draws))
