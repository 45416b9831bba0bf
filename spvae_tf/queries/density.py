"""How likely images are, in nats per image: log p(x), marginals, conditionals, and how far to trust them.

All rests on `streamed_bound`: the leaves' bounds (2) for any k in constant memory, and the SPN over them (9).
"""

import math
import numbers
import typing

import keras
import numpy as np
import tensorflow as tf

from spvae_tf.errors import InputError, check_integer
from spvae_tf.model import iwae
from spvae_tf.ops.device import codes_at_once, compiled
from spvae_tf.ops.noise import fold_in, make_seed, random_bits, standard_normal
from spvae_tf.queries import leaves, masks
from spvae_tf.queries.batches import in_batches

EVALUATION_BATCH = 100  # images whose samples are streamed together
MOST_SAMPLES = 2**31 - 1  # that an int32 counts
REFINEMENT_SAMPLES = 5  # of the ELBO that a step of refinement climbs
REFINEMENT_RATE = 0.2  # Adam's at the first step; falls in a straight line to 0 at the last


def log_prob(model, x, num_samples=1000, observed=None, seed=None, refinements=0):
    """log p(x), or the marginal log p(x_observed), [batch], by the bound with k = `num_samples` (equation 9).

    A leaf without an observed pixel is exactly log 1; with nothing observed the result is exactly 0.

    Args:
      x: [batch, pixels] in [0, 1]; what stands at unobserved pixels does not matter and may be NaN.
      observed: bool [batch, pixels], True where a pixel is observed. None: all are.
      seed: integer; None draws a fresh one.
      refinements: steps by which q(z | x) is first fitted to each image on its own (`refine`); 0 takes the encoder's.
        It stays a bound, from some hundred steps on a tighter one, above all where a mask cuts through a leaf region.

    Raises:
      InputError: on a wrong shape or dtype, an observed pixel outside [0, 1] or NaN, or a count out of range.
    """
    return estimate(model, x, num_samples, observed, seed, refinements)[0]


def estimate(model, x, num_samples=1000, observed=None, seed=None, refinements=0, progress=None, skip=0):
    """(`log_prob`, the effective sample size of every leaf [batch, leaf regions, components]); arguments as there.

    `progress` and `skip`, the number of leading images already done, are as in `in_batches`.
    """
    return from_leaves(model, lambda x, observed, bound: bound[:2], x, num_samples, observed, seed, refinements,
                       progress, skip)


def conditional_log_prob(model, x, query, evidence, num_samples=1000, seed=None, refinements=0):
    """log p(x_query | x_evidence) = log p(x_query, x_evidence) − log p(x_evidence), [batch], as in `log_prob`.

    `query` and `evidence` are disjoint masks. Both terms are lower bounds, from the same noise, so that what they share
    cancels. Their difference is no bound: its error is the difference of the two bounds' gaps, of either sign.
    """
    x = masks.check_shape(model, x)
    query, evidence = masks.check_mask("query", query, x.shape), masks.check_mask("evidence", evidence, x.shape)
    both = query & evidence
    if both.any():
        image, pixel = np.argwhere(both)[0]
        raise InputError(f"pixel {pixel} of image {image} is in query and in evidence; the masks must be disjoint")
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    joint = log_prob(model, x, num_samples, query | evidence, seed, refinements)
    return joint - log_prob(model, x, num_samples, evidence, seed, refinements)


class Bound(typing.NamedTuple):
    """The bound of a batch of images, and that of every leaf."""
    log_prob: tf.Tensor  # [batch], nats per image
    effective_sample_size: tf.Tensor  # [batch, leaf regions, components], between 1 and k
    leaves: tf.Tensor  # [batch, leaf regions, components], L̂_l,k(x_l), nats without the base measure


def from_leaves(model, answer, x, num_samples, observed, seed, refinements=0, progress=None, skip=0):
    """Checks images and returns `answer(x, observed, Bound)` of every batch of them; the rest is as in `estimate`."""
    num_samples = check_integer("num_samples", num_samples, high=MOST_SAMPLES)
    check_integer("refinements", refinements, low=0)

    def query(x, observed, seed):
        posterior = refine(model, x, observed, refinements, seed) if refinements else None
        return answer(x, observed, streamed_bound(model, x, observed, tf.constant(num_samples), seed, posterior))

    return in_batches(query, masks.check_images(model, x, observed), make_seed(seed), EVALUATION_BATCH, progress, skip)


@compiled(jit=False)
def streamed_bound(model, x, observed, num_samples, seed, posterior=None, codes_per_chunk=None):
    """The Bound of one batch, from `codes_per_chunk` images times samples at a time, or what suits the device.

    `posterior` is (mean, precision) of q(z | x), or None for the encoder's.
    """
    batch = x.shape[0]
    chunk = max(1, (codes_per_chunk or codes_at_once(x.shape[1])) // batch)
    posterior, log_base = _prepare(model, x, observed, posterior)
    state = iwae.RunningBound.start([model.num_experts, batch], log_base.dtype)
    for done in tf.range(0, num_samples, chunk):
        bits = random_bits(model.noise_shape(chunk, batch), fold_in(seed, done))
        state = _add_chunk(model, x, observed, posterior, bits, num_samples - done, state)
    return _finish(model, observed, log_base, state, num_samples)


@compiled()
def _prepare(model, x, observed, posterior):
    return posterior or model.encode(x, observed), model.log_base(x, observed)


@compiled()
def _add_chunk(model, x, observed, posterior, bits, wanted, state):
    log_weights, _ = model.log_importance_weights(x, posterior, standard_normal(bits, x.dtype), observed)
    surplus = tf.range(bits.shape[1]) >= wanted  # of the last chunk
    log_weights = tf.where(surplus[None, :, None], tf.constant(-math.inf, log_weights.dtype), log_weights)
    return iwae.RunningBound.add(state, log_weights)


@compiled()
def _finish(model, observed, log_base, state, num_samples):
    seen = leaves.sees(model, observed)  # a leaf that sees no pixel is log 1: the integral of p(z)
    bounds = tf.where(seen, iwae.RunningBound.bound(state, num_samples), 0)
    sizes = iwae.RunningBound.effective_sample_size(state)
    sizes = tf.where(seen, sizes, tf.cast(num_samples, sizes.dtype))
    value = tf.where(tf.reduce_any(seen, axis=0), model.combine(bounds, log_base), 0)
    return Bound(value, model.by_region(sizes), model.by_region(bounds))


def refine(model, x, observed, steps, seed):
    """(mean, precision) of q(z_l | x_l) after Adam's steps from the encoder's, on each image's and expert's own ELBO.

    Semi-amortised inference (Kim et al., 2018): an encoder's q is its best for all images at once, this one the best
    for each. The noise is not that of the bound, so the bound remains one.
    """
    mean, precision = _prepare(model, x, observed, None)[0]
    position = [keras.Variable(mean), keras.Variable(tf.math.log(precision))]
    rate = keras.optimizers.schedules.PolynomialDecay(REFINEMENT_RATE, steps, end_learning_rate=0.0)
    optimizer = keras.optimizers.Adam(rate, beta_2=0.9)  # soon forgets the steep climb of the first steps
    for step in range(1, steps + 1):
        bits = random_bits(model.noise_shape(REFINEMENT_SAMPLES, x.shape[0]), fold_in(seed, -step))
        gradients = _elbo_gradient(model, x, observed, *(p.value for p in position), bits)
        optimizer.apply([-gradient for gradient in gradients], position)
    return position[0].value, tf.exp(position[1].value)


@compiled()
def _elbo_gradient(model, x, observed, mean, log_precision, bits):
    """Gradient of every expert's ELBO of every image in the parameters of its own q(z | x)."""
    with tf.GradientTape() as tape:
        tape.watch([mean, log_precision])
        posterior, noise = (mean, tf.exp(log_precision)), standard_normal(bits, x.dtype)
        elbos = tf.reduce_mean(model.log_importance_weights(x, posterior, noise, observed)[0], axis=1)
    return tape.gradient(elbos, [mean, log_precision])


class Outliers(typing.NamedTuple):
    """How little a model expects of images."""
    score: tf.Tensor  # [batch], −log p(x), nats per image
    heat: tf.Tensor  # [batch, pixels], nats per pixel: −log p(x_l) of the leaf region l that holds it, over its size


def outlier_score(model, x, num_samples=1000, seed=None):
    """How unexpected images are, and where: Outliers; arguments as in `log_prob`.

    A leaf region's marginal is the mixture of its VAEs under the trees' prior, p(x_l) = Σ_c P(c) p_c(x_l). If leaf
    regions overlap, the value is conditional on the tree using the region, and a pixel has the regions' mean heat.
    """
    return from_leaves(model, lambda x, _, bound: Outliers(-bound.log_prob, _heat(model, x, bound.leaves)),
                       x, num_samples, None, seed)


@compiled()
def _heat(model, x, leaf_bounds):
    prior = leaves.in_tree(model, tf.zeros_like(leaf_bounds))
    base = tf.gather(model.likelihood.log_base(x), model.leaf_pixels, axis=1)
    base = tf.reduce_sum(tf.where(model.leaf_exists, base, 0), axis=2)
    share = prior / tf.reduce_sum(prior, axis=2, keepdims=True)  # P(c)
    marginal = tf.reduce_logsumexp(tf.math.log(share) + leaf_bounds, axis=2) + base  # log p(x_l), [batch, R]
    per_pixel = -marginal / model.leaf_exists.sum(axis=1).astype(model.variable_dtype)
    parts = tf.tile(tf.transpose(per_pixel)[:, None, :, None], [1, prior.shape[2], 1, model.leaf_pixels.shape[1]])
    return leaves.assemble(model, parts, prior)


class Diagnostics(typing.NamedTuple):
    """How far a log-likelihood is to be trusted."""
    log_prob: tf.Tensor  # [batch], nats per image, as `log_prob` gives it
    standard_error: tf.Tensor  # [batch], nats: of log_prob over the samples of z, by the delta method
    effective_sample_size: tf.Tensor  # [batch, leaf regions, components], between 1 and k
    num_samples: tf.Tensor  # [batch, rungs], k = 1, 2, 4, … up to the one asked for
    bounds: tf.Tensor  # [batch, rungs], nats per image: from the first so many of the same samples
    levelled_off: tf.Tensor  # [batch], the least of these k from which on all bounds are within tolerance of the last


def diagnose(model, x, num_samples=1000, observed=None, tolerance=None, seed=None):
    """A log-likelihood, and how far to trust it and all queries with this k: Diagnostics; arguments as in `log_prob`.

    ∂ log p / ∂ L̂_l is P(leaf l | x), and Var L̂_l is about 1/ESS_l − 1/k for its effective sample size. Hence
    standard_error² = Σ_l P(l | x)² (1/ESS_l − 1/k). It cannot see modes that no sample reached, and no leaf adds more
    than 1 nat to it: where an effective sample size is near 1, trust the ladder of bounds more.

    k is at least 2. By `tolerance` nats, above 0, a bound that has levelled off may differ from the last; None takes
    twice the standard error of each image.
    """
    num_samples = check_integer("num_samples", num_samples, low=2, high=MOST_SAMPLES)
    if tolerance is not None and not (isinstance(tolerance, numbers.Real) and tolerance > 0):
        raise InputError(f"tolerance is {tolerance!r}; it must be a positive number of nats")
    ladder = [2**n for n in range((num_samples - 1).bit_length())] + [num_samples]

    def query(x, observed, seed):  # every rung begins with the samples of the last
        rungs = [streamed_bound(model, x, observed, tf.constant(k), seed) for k in ladder]
        value, sizes, leaf_bounds = rungs[-1]
        variance = tf.maximum((num_samples - sizes) / (num_samples * sizes), 0)  # 1/ESS − 1/k, 0 for equal weights
        error = tf.sqrt(tf.reduce_sum(tf.square(leaves.in_tree(model, leaf_bounds)) * variance, axis=[1, 2]))
        bounds = tf.stack([rung.log_prob for rung in rungs], axis=1)
        near = tf.abs(bounds - value[:, None]) <= (2 * error[:, None] if tolerance is None else tolerance)
        steady = tf.math.cumprod(tf.cast(near, tf.int32), axis=1, reverse=True)
        first = tf.gather(ladder, len(ladder) - tf.reduce_sum(steady, axis=1))
        return Diagnostics(value, error, sizes, tf.repeat([ladder], x.shape[0], axis=0), bounds, first)

    return in_batches(query, masks.check_images(model, x, observed), make_seed(seed), EVALUATION_BATCH)
