"""What an image's latent states are: the SPN's y, the most probable induced tree, and the embedding of section 4.2."""

import math
import typing

import numpy as np
import tensorflow as tf

from spvae_tf.ops.device import compiled
from spvae_tf.queries import leaves
from spvae_tf.queries.density import from_leaves


class Posterior(typing.NamedTuple):
    """P(latent states of the SPN | x); regions and products are those of `spn.levels`, from the leaves to the root."""
    leaves: tf.Tensor  # [batch, leaf regions, components], P(the induced tree ends in this VAE | x)
    children: tuple  # for each level [batch, regions, sums, products], P(y_n = product | x, sum n is in the tree)
    sums: tuple  # for each level [batch, regions, sums], P(sum n is in the tree | x)
    partitions: tf.Tensor  # [batch, partitions], P(the tree splits a region so | x), in the order of `graph.partitions`


def posterior(model, x, num_samples=100, observed=None, seed=None):
    """The Posterior of every sum's child, every leaf VAE, every partition; arguments as in `log_prob`."""
    return from_leaves(model, lambda x, _, bound: states(model, bound.leaves), x, num_samples, observed, seed)


@compiled()
def states(model, leaf_bounds):
    """The Posterior, given the leaves' bounds."""
    reached, choices = model.spn.posterior(leaf_bounds)
    sums = leaves.of_sums(model.spn, reached)
    count, batch = len(model.graph.partitions), leaf_bounds.shape[0]
    partitions = tf.zeros([count, batch], leaf_bounds.dtype)
    for level, choice, in_tree in zip(model.spn.levels, choices, sums) if count else ():
        products = tf.reduce_sum(choice * in_tree[:, None], axis=2)  # P(product in the tree), [R, M, batch]
        partitions += tf.math.unsorted_segment_sum(
            tf.reshape(products, [-1, batch]), _partitions_of_products(model.spn, level), count)
    return Posterior(leaves=model.spn.leaf_nodes(reached), partitions=tf.transpose(partitions),
                     children=tuple(tf.transpose(choice, [3, 0, 2, 1]) for choice in choices),
                     sums=tuple(tf.transpose(in_tree, [2, 0, 1]) for in_tree in sums))


def _partitions_of_products(spn, level):
    """The number of the partition that each product [regions × products] of a level belongs to; −1: of none."""
    graph, numbers = spn.graph, np.full(level.children.shape[:2], -1)
    for row, region in zip(numbers, level.regions):
        products = [graph.partitions.index(partition) for partition in graph.partitions_of(region)
                    for _ in range(math.prod(spn.num_sums if graph.partitions_of(child) else spn.num_components
                                             for child in partition.children))]
        row[:len(products)] = products
    return numbers.ravel()


class Tree(typing.NamedTuple):
    """A most probable induced tree."""
    log_prob: tf.Tensor  # [batch], nats: log Π w_nc Π p_l(x_l) of this tree, its term of equation (5)
    leaves: tf.Tensor  # [batch, leaf regions, components], 1 for the tree's VAEs, 0 for all others
    nodes: tf.Tensor  # [batch, nodes], the same for all nodes of the SPN, in the order of `spn.upward`
    reconstruction: tf.Tensor  # [batch, pixels], E[x | z] of its VAEs at the means of their q(z | x), or of p(z)


def most_probable_tree(model, x, num_samples=100, observed=None, seed=None):
    """The most probable induced Tree of each image, by max-product; arguments as in `log_prob`."""
    return from_leaves(model, lambda x, observed, bound: _tree(model, x, observed, bound.leaves),
                       x, num_samples, observed, seed)


@compiled()
def _tree(model, x, observed, leaf_bounds):
    selected, value = model.spn.most_probable_tree(leaf_bounds)
    chosen = model.spn.leaf_nodes(selected)
    means = tf.transpose(leaves.propose(model, x, observed)[0], [1, 0, 2])
    return Tree(value + model.log_base(x, observed), chosen, tf.transpose(selected),
                leaves.picture(model, means, chosen))


def embed(model, x, num_samples=100, seed=0):
    """The latent embedding of section 4.2, [batch, features]; arguments as in `log_prob`.

    With E experts (leaf regions × components, a region's side by side) the features are, in this order:

    * E · n_z: for each expert its posterior mean E_q[z | x_l]; of a VAE, which has no SPN, these alone;
    * E: for each expert P(the induced tree ends in it | x);
    * one for each sum weight, in the order of `spn.sum_weights`: P(sum n is in the tree, y_n = product | x).
    """
    return from_leaves(model, lambda x, _, bound: features(model, x, bound.leaves), x, num_samples, None, seed)


@compiled()
def features(model, x, leaf_bounds):
    """The embedding, given the leaves' bounds."""
    batch = x.shape[0]
    means, in_tree = (tf.reshape(part, [batch, -1]) for part in leaves.expected(model, x, leaf_bounds))
    if not model.spn.num_weights:
        return means
    _, choices = model.spn.posterior(leaf_bounds)
    _, edges = model.spn.downward(choices, tf.ones([batch], leaf_bounds.dtype))
    return tf.concat([means, in_tree, tf.transpose(model.spn.by_weight(edges))], axis=1)
