"""Images out of a model: new ones, missing pixels, and images through their latent states.

E[x | z] lies in [0, 1]. A draw from p(x | z) is a multiple of 1/255 in [0, 1] where pixels are counts, and any real
number for the Gaussian, whose deviation is up to 1.
"""

import numpy as np
import tensorflow as tf

from spvae_tf.errors import InputError, check_integer
from spvae_tf.ops.device import compiled
from spvae_tf.ops.functions import draw_index
from spvae_tf.ops.noise import make_seed, random_bits, split, standard_normal, uniform
from spvae_tf.queries import leaves, masks
from spvae_tf.queries.batches import in_batches
from spvae_tf.queries.density import from_leaves

DECODED_AT_ONCE = 1000  # images times samples, times draws or times steps


def sample(model, n, mean=True, seed=None):
    """n new images [n, pixels]: an induced tree from the root down, then z ~ N(0, I) for its VAEs (equations 5 and 3).

    Their pixels are E[x | z] where `mean` is True, and draws from p(x | z) where it is False.
    """
    return in_batches(lambda numbers, seed: sample_batch(model, numbers.shape[0], mean, seed),
                      [np.arange(check_integer("n", n))], make_seed(seed), DECODED_AT_ONCE)


def sample_batch(model, batch, mean, seed):
    """`sample` of one batch, with its seed, int32 [2]."""
    seeds = split(seed, 3)
    outputs = _draw_from_prior(model, random_bits(model.noise_shape(1, batch), seeds[0]),
                               random_bits([model.spn.num_sum_nodes, batch], seeds[1]))
    return model.likelihood.mean(outputs) if mean else _draw_pixels(model, outputs, seeds[2])


@compiled()
def _draw_from_prior(model, bits, tree_bits):
    """Decoder outputs [batch, pixels] of trees and codes from the prior."""
    nothing_seen = model.by_region(tf.zeros([model.num_experts, bits.shape[2]], model.variable_dtype))
    trees = leaves.draw_trees(model, nothing_seen, tree_bits)
    outputs = model.decode(standard_normal(bits, model.variable_dtype))
    return tuple(leaves.assemble(model, output[:, 0], trees) for output in outputs)


@compiled(jit=False)
def _draw_pixels(model, outputs, seed):
    draws = model.likelihood.draw([tf.cast(output, tf.float32) for output in outputs], seed)  # the same in float64
    return tf.cast(draws, model.variable_dtype)


def inpaint(model, x, observed, num_draws=None, mean=True, num_samples=100, seed=None):
    """x with unobserved pixels filled in from p(x_unobserved | x_observed), [batch, pixels] or [batch, draws, pixels].

    Given the observed pixels the trees have their posterior probabilities, and the code of each VAE the distribution
    of its k proposals z_i ~ q(z | x_observed) under normalised importance weights. A draw takes a tree, then a code for
    each of its VAEs (sampling importance resampling); the posterior mean sums over both.

    Args (others as in `log_prob`):
      num_draws: None gives the posterior mean E[x_unobserved | x_observed]; an integer gives so many draws.
      mean: of draws, whether their pixels are E[x | z] or drawn from p(x | z), as in `sample`.
    """
    num_samples = check_integer("num_samples", num_samples)
    images = masks.check_images(model, x, masks.as_array("observed", observed))  # None is no mask here
    draws = num_draws if num_draws is None else check_integer("num_draws", num_draws)

    def query(x, observed, seed):
        if draws is None:
            return posterior_mean(model, x, observed, num_samples, seed)
        batch, seeds = x.shape[0], split(seed, 4)
        outputs = _draw_from_proposals(model, x, observed,
                                       random_bits(model.noise_shape(num_samples, batch), seeds[0]),
                                       random_bits([model.spn.num_sum_nodes, batch * draws], seeds[1]),
                                       random_bits([model.num_experts, batch, draws], seeds[2]))
        pixels = model.likelihood.mean(outputs) if mean else _draw_pixels(model, outputs, seeds[3])
        return tf.where(observed[:, None], x[:, None], tf.reshape(pixels, [batch, draws, -1]))

    return in_batches(query, images, make_seed(seed), max(1, DECODED_AT_ONCE // max(num_samples, draws or 1)))


def posterior_mean(model, x, observed, num_samples, seed):
    """E[x | x_observed] of one batch, with its seed, int32 [2]."""
    return _mean_of_proposals(model, x, observed, random_bits(model.noise_shape(num_samples, x.shape[0]), seed))


@compiled()
def _mean_of_proposals(model, x, observed, bits):
    outputs, weights, leaf_bounds = leaves.proposals(model, x, observed, bits)
    parts = tf.reduce_sum(model.likelihood.mean(outputs) * weights[..., None], axis=1)
    return tf.where(observed, x, leaves.assemble(model, parts, leaves.in_tree(model, leaf_bounds)))


@compiled()
def _draw_from_proposals(model, x, observed, bits, tree_bits, choice_bits):
    """Decoder outputs [batch × draws, pixels] of trees and codes from the posterior."""
    outputs, weights, leaf_bounds = leaves.proposals(model, x, observed, bits)
    num_experts, batch, draws = choice_bits.shape
    trees = leaves.draw_trees(model, tf.repeat(leaf_bounds, draws, axis=0), tree_bits)
    chosen = draw_index(weights[..., None], uniform(choice_bits, x.dtype))  # proposals, [experts, batch, draws]

    def choose(output):
        output = tf.gather(tf.transpose(output, [0, 2, 1, 3]), chosen, batch_dims=2)
        return leaves.assemble(model, tf.reshape(output, [num_experts, batch * draws, -1]), trees)

    return tuple(choose(output) for output in outputs)


def reconstruct(model, x, num_samples=100, seed=None):
    """Images through their latent states, [batch, pixels] in [0, 1]; arguments as in `log_prob`.

    E[x | z] at the means of q(z | x), averaged over the posterior of trees.
    """
    return from_leaves(model, lambda x, _, bound: leaves.picture(model, *leaves.expected(model, x, bound.leaves)),
                       x, num_samples, None, seed)


def interpolate(model, x0, x1, steps=8, num_samples=100, seed=None):
    """A path of at least 2 images from the reconstruction of x0 to that of x1, [batch, steps, pixels].

    It is straight in the latent states: at t = 0 … 1 every leaf VAE has the code (1 − t) z₀ + t z₁ between its
    posterior means, and the trees the probabilities (1 − t) P(· | x₀) + t P(· | x₁). Arguments as in `log_prob`.
    """
    steps = check_integer("steps", steps, low=2)
    x0, x1 = (masks.check_shape(model, x) for x in (x0, x1))
    if x0.shape != x1.shape:
        raise InputError(f"x0 has shape {x0.shape}, x1 {x1.shape}; interpolate needs equal shapes")
    ends = [from_leaves(model, lambda x, _, bound: leaves.expected(model, x, bound.leaves), x, num_samples, None, seed)
            for x in (x0, x1)]
    paths = [np.linspace(start, end, steps, axis=1, dtype=model.variable_dtype).reshape(-1, *start.shape[1:])
             for start, end in zip(*ends)]  # [batch × steps, …]
    pictures = in_batches(lambda means, in_tree, _: leaves.picture(model, means, in_tree), paths, make_seed(seed),
                          DECODED_AT_ONCE)
    return tf.reshape(pictures, [len(x0), steps, model.graph.num_variables])
