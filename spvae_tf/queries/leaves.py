"""What queries share: proposals of all experts, induced trees, and images put together from leaves.

Inside, an expert's numbers are [experts, …, batch, …], as in the model. What the SPN is given or returns is
[batch, leaf regions, components]: leaf bounds, in nats, or probabilities that the induced tree ends in a leaf.
"""

import itertools

import numpy as np
import tensorflow as tf

from spvae_tf.model import iwae
from spvae_tf.ops.device import compiled
from spvae_tf.ops.noise import random_bits, standard_normal, uniform

# --- codes ------------------------------------------------------------------------------------------------------------

def sees(model, observed):
    """Whether an expert sees an observed pixel, bool [experts, batch]."""
    return tf.reduce_any(model.present(observed), axis=-1)


def propose(model, x, observed):
    """q(z | x_observed), as (mean, precision): that of `encode`, but p(z) = N(0, I) for a leaf that sees no pixel."""
    mean, precision = model.encode(x, observed)
    if observed is None:
        return mean, precision
    seen = sees(model, observed)[..., None]
    return tf.where(seen, mean, 0), tf.where(seen, precision, 1)


def proposals(model, x, observed, bits):
    """k codes z_i ~ q(z | x_observed) of every expert, made of the random bits [experts, k, batch, latent_dim].

    Returns:
      (their decoder outputs, a tuple of [experts, k, batch, pixels of a leaf]; their normalised importance weights
      [experts, k, batch]; the leaf bounds they give [batch, leaf regions, components]).
    """
    log_weights, outputs = model.importance_weights(x, propose(model, x, observed), standard_normal(bits, x.dtype),
                                                    observed)
    return outputs, tf.nn.softmax(log_weights, axis=1), model.by_region(iwae.iwae_bound(log_weights))


@compiled()
def codes(model, x, leaf_bounds):
    """(E_q[z | x_l] [batch, experts, latent_dim], P(the tree ends in a leaf | x) [batch, leaf regions, components])."""
    reached, _ = model.spn.posterior(leaf_bounds)
    return tf.transpose(model.encode(x)[0], [1, 0, 2]), model.spn.leaf_nodes(reached)


# --- induced trees ----------------------------------------------------------------------------------------------------

def prior_of_trees(model, batch):
    """log w_nc of every level as `spn.sample_trees` and `spn.downward` take them, [R, M, S, batch]."""
    return [tf.repeat(tf.cast(log_weights, model.variable_dtype)[..., None], batch, axis=-1)
            for log_weights in model.spn.log_weights()]


def bits_of_trees(model, batch, seed):
    """Random bits for `draw_trees`: for each level [regions, sums, batch]."""
    levels = model.spn.levels
    if not levels:
        return []
    sizes = [len(level.regions) * level.num_sums for level in levels]
    parts = tf.split(random_bits([sum(sizes), batch], seed), sizes)
    return [tf.reshape(part, [len(level.regions), level.num_sums, batch]) for part, level in zip(parts, levels)]


def draw_trees(model, log_weights, bits, batch):
    """The leaves of one induced tree for each column of the levels' log-weights: 0 or 1."""
    uniforms = [uniform(level, model.variable_dtype) for level in bits]
    return model.spn.leaf_nodes(model.spn.sample_trees(log_weights, uniforms, batch))


# --- images -----------------------------------------------------------------------------------------------------------

@compiled()
def picture(model, means, weights):
    """E[x | z] [batch, pixels] for codes [batch, experts, latent_dim], leaves weighted as in `assemble`."""
    outputs = model.decode(tf.transpose(means, [1, 0, 2])[:, None])
    return assemble(model, model.likelihood.mean(outputs)[:, 0], weights)


def assemble(model, parts, weights):
    """Images [batch, pixels] from the experts' parts: each pixel is the weighted sum over the leaves that hold it.

    Args:
      parts: [experts, batch, pixels of a leaf].
      weights: [batch, leaf regions, components], 0 or 1 for a tree's own image, posterior probabilities for the mean
        over trees; they sum to one over the leaves that hold a pixel.
    """
    regions, components = weights.shape[1:]
    parts = tf.reshape(parts, [regions, components, *parts.shape[1:]])
    mixed = tf.reshape(tf.einsum("rknp,nrk->rpn", parts, weights), [-1, weights.shape[0]])
    return tf.transpose(tf.reduce_sum(tf.gather(tf.pad(mixed, [[0, 1], [0, 0]]), _places(model)), axis=1))


def _places(model):
    """int32 [pixels, m], the up to m places of each pixel in [leaf regions × pixels of a leaf]; one past the end, where
    `assemble` has a 0, fills up the rows."""
    rows = np.flatnonzero(model.leaf_exists)
    pixels = model.leaf_pixels.reshape(-1)[rows]
    places = [rows[pixels == pixel] for pixel in range(model.graph.num_variables)]
    return np.array(list(itertools.zip_longest(*places, fillvalue=model.leaf_pixels.size)), np.int32).T
