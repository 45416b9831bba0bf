"""What queries share: proposals of all experts, induced trees, and images put together from leaves.

What the SPN is given or returns is [batch, leaf regions, components]: leaf bounds, in nats, or probabilities that the
induced tree ends in a leaf. Nothing is observed where all leaf bounds are 0: the posterior of trees is their prior.
"""

import itertools

import numpy as np
import tensorflow as tf

from spvae_tf.model import iwae
from spvae_tf.ops.device import compiled
from spvae_tf.ops.noise import standard_normal, uniform


def sees(model, observed):
    """Whether an expert sees an observed pixel, bool [experts, batch], or [experts, 1] where `observed` is None."""
    return tf.reduce_any(model.present(observed), axis=-1)


def propose(model, x, observed):
    """q(z | x_observed), as (mean, precision): that of `encode`, but p(z) = N(0, I) for a leaf that sees no pixel."""
    mean, precision = model.encode(x, observed)
    seen = sees(model, observed)[..., None]
    return tf.where(seen, mean, 0), tf.where(seen, precision, 1)


def proposals(model, x, observed, bits):
    """k codes z_i ~ q(z | x_observed) of every expert, of random bits of `noise_shape(k, batch)`: (the outputs of
    `decode`, normalised importance weights [experts, k, batch], leaf bounds)."""
    posterior, noise = propose(model, x, observed), standard_normal(bits, x.dtype)
    log_weights, outputs = model.log_importance_weights(x, posterior, noise, observed)
    return outputs, tf.nn.softmax(log_weights, axis=1), model.by_region(iwae.iwae_bound(log_weights))


@compiled()
def expected(model, x, leaf_bounds):
    """The expected latent states: (E_q[z | x_l] [batch, experts, latent_dim], P(the tree ends in a leaf | x))."""
    return tf.transpose(model.encode(x)[0], [1, 0, 2]), in_tree(model, leaf_bounds)


@compiled()
def in_tree(model, leaf_bounds):
    """P(the induced tree ends in a leaf | x)."""
    return model.spn.leaf_nodes(model.spn.posterior(leaf_bounds)[0])


def draw_trees(model, leaf_bounds, bits):
    """The leaves, 0 or 1, of one induced tree for each image, made of random bits [sums, batch]."""
    _, mixtures = model.spn.upward(leaf_bounds)
    uniforms = of_sums(model.spn, uniform(bits, model.variable_dtype))
    return model.spn.leaf_nodes(model.spn.sample_trees(mixtures, uniforms, leaf_bounds.shape[0]))


def of_sums(spn, nodes):
    """What the sums have, the last rows of [nodes, batch]: for each level [regions, sums, batch]."""
    before = nodes.shape[0] - spn.num_nodes  # 0, or less where the rows are of the sums alone
    return [tf.reshape(nodes[level.first_node + before:][:len(level.regions) * level.num_sums],
                       [len(level.regions), level.num_sums, -1]) for level in spn.levels]


@compiled()
def picture(model, means, weights):
    """E[x | z] [batch, pixels] for codes [batch, experts, latent_dim], leaves weighted as in `assemble`."""
    outputs = model.decode(tf.transpose(means, [1, 0, 2])[:, None])
    return assemble(model, model.likelihood.mean(outputs)[:, 0], weights)


def assemble(model, parts, weights):
    """Images [batch, width · pixels] from the experts' parts [experts, batch, width · pixels of a leaf].

    A pixel is the weighted sum over the leaves that hold it: by 0 or 1 for a tree's own image, by `in_tree` for the
    mean over trees. The `width` numbers of a pixel lie as in likelihoods.py.
    """
    regions, components = weights.shape[1:]
    width = parts.shape[-1] // model.leaf_pixels.shape[1]
    parts = tf.reshape(parts, [regions, components, parts.shape[-2], width, -1])
    mixed = tf.reshape(tf.einsum("rknwp,nrk->rpnw", parts, weights), [-1, weights.shape[0], width])
    images = tf.reduce_sum(tf.gather(tf.pad(mixed, [[0, 1], [0, 0], [0, 0]]), _places(model)), axis=1)
    return tf.reshape(tf.transpose(images, [1, 2, 0]), [weights.shape[0], -1])


def _places(model):
    """int32 [pixels, m], where a pixel lies in [leaf regions × pixels of a leaf]; the place past the end fills up."""
    places = np.flatnonzero(model.leaf_exists)
    pixels = model.leaf_pixels.ravel()[places]
    of_pixels = [places[pixels == pixel] for pixel in range(model.graph.num_variables)]
    return np.array(list(itertools.zip_longest(*of_pixels, fillvalue=model.leaf_pixels.size)), np.int32).T
