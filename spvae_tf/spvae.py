"""The class that a user holds: the mixture (model/mixture.py) with its queries; the paper's four models."""

import math

import keras
import tensorflow as tf

from spvae_tf.errors import InputError, check_integer
from spvae_tf.model import iwae
from spvae_tf.model.mixture import Mixture, check_image_shape
from spvae_tf.model.region_graph import poon_domingos, single_region
from spvae_tf.ops.device import codes_at_once, compiled
from spvae_tf.ops.noise import fold_in, make_seed, random_bits, standard_normal
from spvae_tf.queries.batches import check_images, in_batches
from spvae_tf.queries.inference import Queries

# name -> (is there an SPN over super-pixels?, experts)
MODELS = {"SPVAE": (True, "dense"), "VAE": (False, "dense"),
          "Conv-SPVAE": (True, "conv_leaf"), "Conv-VAE": (False, "conv_image")}

EVALUATION_BATCH = 100  # images whose samples are streamed together
REFINEMENT_SAMPLES = 5  # of the ELBO that a step of refinement climbs
REFINEMENT_RATE = 0.2  # Adam's at the first step; falls in a straight line to 0 at the last


@keras.saving.register_keras_serializable("spvae_tf")
class SPVAE(Queries, Mixture):
    """A hierarchical decompositional mixture of VAEs, to be asked; its arguments are those of `Mixture`."""

    # --- estimates for any k ------------------------------------------------------------------------------------

    def log_prob(self, x, num_samples=1000, observed=None, seed=None, refinements=0):
        """log p(x), or the marginal log p(x_observed), estimated by the bound with k = `num_samples` (equation 9).

        The samples are streamed, so memory does not grow with k. A leaf without an observed pixel is exactly log 1;
        with nothing observed the result is exactly 0.

        Args:
          x: [batch, pixels] in [0, 1]; what stands at unobserved pixels does not matter and may be NaN.
          num_samples: k.
          observed: bool [batch, pixels], True where a pixel is observed. None: all are.
          seed: integer; None draws a fresh one.
          refinements: steps by which q(z | x) is first fitted to each image on its own (`refine`); 0 takes the
            encoder's. It stays a bound, from some hundred steps on a tighter one, above all where a mask cuts through a
            leaf region.

        Returns:
          Tensor [batch], nats per image.

        Raises:
          InputError: on a wrong shape or dtype, a pixel outside [0, 1] or NaN, a k below 1 or negative refinements.
        """
        return self.estimate(x, num_samples, observed, seed, refinements)[0]

    def estimate(self, x, num_samples=1000, observed=None, seed=None, refinements=0, progress=None):
        """The estimate of `log_prob` and how well its samples served.

        Args:
          x, num_samples, observed, seed, refinements: as in `log_prob`.
          progress: called with (images done, their log-likelihoods so far) after every batch.

        Returns:
          (log_prob [batch], nats per image; effective sample size of every leaf [batch, leaf regions, components]).
        """
        num_samples = check_integer("num_samples", num_samples)
        if refinements != 0:
            check_integer("refinements", refinements)
        images = check_images(x, self.graph.num_variables, observed, self.variable_dtype)

        def query(x, observed, seed):
            posterior = self.refine(x, observed, refinements, seed) if refinements else None
            return self._streamed(x, observed, tf.constant(num_samples), seed, posterior)[:2]

        return in_batches(query, images, make_seed(seed), EVALUATION_BATCH, progress)

    def refine(self, x, observed, steps, seed):
        """q(z_l | x_l) of each image and expert after Adam's steps on its own ELBO, from the encoder's as the start.

        Semi-amortised inference (Kim et al., 2018): an encoder's q is the best of those it can express for all images
        at once, this one the best for each. The noise is not that of the bound, so the bound remains one.

        Args:
          x: tensor [batch, pixels] in [0, 1].
          observed: bool [batch, pixels] or None.
          steps: of Adam.
          seed: int32 [2].

        Returns:
          (mean, precision), each [experts, batch, latent_dim].
        """
        mean, precision = self._prepare(x, observed)[0]
        position = [keras.Variable(mean), keras.Variable(tf.math.log(precision))]
        rate = keras.optimizers.schedules.PolynomialDecay(REFINEMENT_RATE, steps, end_learning_rate=0.0)
        optimizer = keras.optimizers.Adam(rate, beta_2=0.9)  # soon forgets the steep climb of the first steps
        shape = self.noise_shape(REFINEMENT_SAMPLES, x.shape[0])
        for step in range(1, steps + 1):
            bits = random_bits(shape, fold_in(seed, -step))
            gradients = self._elbo_gradient(x, observed, *(p.value for p in position), bits)
            optimizer.apply([-gradient for gradient in gradients], position)
        return position[0].value, tf.exp(position[1].value)

    @compiled()
    def _elbo_gradient(self, x, observed, mean, log_precision, bits):
        """Gradient of every expert's ELBO of every image in the parameters of its own q(z | x)."""
        with tf.GradientTape() as tape:
            tape.watch([mean, log_precision])
            log_weights, _ = self.importance_weights(x, (mean, tf.exp(log_precision)), standard_normal(bits, x.dtype),
                                                     observed)
            elbos = tf.reduce_mean(log_weights, axis=1)
        return tape.gradient(elbos, [mean, log_precision])

    @compiled(jit=False)
    def _streamed(self, x, observed, num_samples, seed, posterior=None, codes=None):
        """The bound of a batch over chunks of samples: encoder and base measure once, decoder once per chunk.

        A chunk has `codes` images times samples, `codes_at_once` by default.

        Returns:
          (log_prob [batch], effective sample sizes and leaf bounds [batch, leaf regions, components]).
        """
        batch = x.shape[0]
        chunk = max(1, (codes or codes_at_once(x.shape[1])) // batch)
        posterior, log_base = self._prepare(x, observed, posterior)
        state = iwae.RunningBound.start([self.num_experts, batch], log_base.dtype)
        for done in tf.range(0, num_samples, chunk):
            bits = random_bits(self.noise_shape(chunk, batch), fold_in(seed, done))
            state = self._add_chunk(x, observed, posterior, bits, num_samples - done, state)
        return self._finish(observed, log_base, state, num_samples)

    @compiled()
    def _prepare(self, x, observed, posterior=None):
        return posterior or self.encode(x, observed), self.log_base(x, observed)

    @compiled()
    def _add_chunk(self, x, observed, posterior, bits, wanted, state):
        log_weights, _ = self.importance_weights(x, posterior, standard_normal(bits, x.dtype), observed)
        surplus = tf.range(bits.shape[1]) >= wanted  # of the last chunk
        log_weights = tf.where(surplus[None, :, None], tf.constant(-math.inf, log_weights.dtype), log_weights)
        return iwae.RunningBound.add(state, log_weights)

    @compiled()
    def _finish(self, observed, log_base, state, num_samples):
        leaves = iwae.RunningBound.bound(state, num_samples)
        sizes = iwae.RunningBound.effective_sample_size(state)
        if observed is not None:  # the integral of p(z) is known where nothing is observed
            seen = tf.reduce_any(self.present(observed), axis=-1)
            leaves, sizes = tf.where(seen, leaves, 0), tf.where(seen, sizes, tf.cast(num_samples, sizes.dtype))
        value = self.combine(leaves, log_base)
        if observed is not None:
            value = tf.where(tf.reduce_any(observed, axis=-1), value, 0)
        return value, self.by_region(sizes), self.by_region(leaves)


def default_delta(image_shape):
    """The step Δ that divides the longer side into at most four super-pixels: 7 for 28×28, 8 for 32×32 (section 4).

    Args:
      image_shape: (height, width).

    Returns:
      Δ in pixels.
    """
    return -(-max(image_shape) // 4)


def canonical_name(model):
    """The name of a model as the paper writes it, whatever its capitals.

    Args:
      model: str.

    Returns:
      A key of MODELS.

    Raises:
      InputError: for a model that does not exist.
    """
    names = {name.lower(): name for name in MODELS}
    if str(model).lower() not in names:
        raise InputError(f"model is {model!r}; it must be one of {', '.join(MODELS)}")
    return names[str(model).lower()]


def build_model(model, image_shape, likelihood, hidden_units, latent_dim, *, delta=None, graph=None, num_sums=2,
                num_components=2, seed=0):
    """One of the paper's four models.

    Args:
      model: "SPVAE", "VAE", "Conv-SPVAE" or "Conv-VAE".
      image_shape: (height, width).
      likelihood: "continuous" or "discrete".
      hidden_units: H.
      latent_dim: n_z.
      delta: side of a super-pixel; None divides the longer side by four. Ignored by the VAEs.
      graph: RegionGraph to use instead of Poon & Domingos' (SPVAE and Conv-SPVAE).
      num_sums: sums per internal region.
      num_components: VAEs per leaf region of an SPVAE.
      seed: of the initial weights.

    Returns:
      SPVAE.

    Raises:
      InputError: when an argument is out of range.
    """
    has_spn, architecture = MODELS[canonical_name(model)]
    height, width = image_shape = check_image_shape(image_shape)
    if not has_spn:
        if graph is not None:
            raise InputError(f"{model} takes no graph: it has a single region")
        graph, num_components = single_region(height * width), 1
    elif graph is None:
        graph = poon_domingos(height, width, default_delta(image_shape) if delta is None else delta)
    return SPVAE(graph, image_shape, likelihood, architecture, hidden_units, latent_dim, num_sums, num_components,
                 seed)
