"""SPVAE: a sum-product network over VAEs, of which a VAE is the case of a single region and a single expert.

    image x ──► leaf regions ──► experts (all at once) ──► L̂_l,k(x_l) ──► SPN ──► L̂_SP,k(x)
                region_graph      vae, likelihoods, iwae                  spn       Theorem 2
"""

import math

import keras
import numpy as np
import tensorflow as tf

from spvae_tf.errors import InputError, check_integer
from spvae_tf.model import experts as vae
from spvae_tf.model import iwae
from spvae_tf.model.likelihoods import get_likelihood
from spvae_tf.model.region_graph import RegionGraph, poon_domingos, rectangle, single_region
from spvae_tf.model.spn import SumProductNetwork
from spvae_tf.ops.device import codes_at_once, compiled
from spvae_tf.ops.functions import sum_last
from spvae_tf.ops.noise import fold_in, random_bits, standard_normal
from spvae_tf.queries.batches import check_image_shape, check_images, check_policy, in_batches, make_seed
from spvae_tf.queries.inference import Queries

# name -> (is there an SPN over super-pixels?, experts)
MODELS = {"SPVAE": (True, "dense"), "VAE": (False, "dense"),
          "Conv-SPVAE": (True, "conv_leaf"), "Conv-VAE": (False, "conv_image")}

EVALUATION_BATCH = 100  # images whose samples are streamed together
REFINEMENT_SAMPLES = 5  # of the ELBO that a step of refinement climbs
REFINEMENT_RATE = 0.2  # Adam's at the first step; falls in a straight line to 0 at the last
FILLING_ROUNDS = 4  # of an encoder over its unobserved pixels

@keras.saving.register_keras_serializable("spvae_tf")
class SPVAE(Queries, keras.Model):
    """A hierarchical decompositional mixture of VAEs (equation 6); what to ask it is in `inference.Queries`.

    Args:
      graph: RegionGraph over the pixels, or its JSON text.
      image_shape: (height, width).
      likelihood: "continuous" (Gaussian) or "discrete" (Binomial).
      architecture: of the experts, "dense", "conv_leaf" or "conv_image".
      hidden_units: H, of each hidden layer of a dense expert, of the one dense layer of a convolutional encoder.
      latent_dim: n_z, the dimension of each expert's code.
      num_sums: K_sum, sums per internal region.
      num_components: K_leaf, experts per leaf region.
      seed: of the initial weights.

    Raises:
      InputError: when an argument is out of range or the graph does not fit the image.
    """

    def __init__(self, graph, image_shape, likelihood, architecture="dense", hidden_units=32, latent_dim=25,
                 num_sums=2, num_components=2, seed=0, **kwargs):
        super().__init__(**kwargs)
        check_policy(self.dtype_policy)
        for name, value in (("hidden_units", hidden_units), ("latent_dim", latent_dim)):
            check_integer(name, value)
        if architecture not in vae.ARCHITECTURES:
            raise InputError(f"architecture is {architecture!r}; it must be one of {', '.join(vae.ARCHITECTURES)}")
        check_integer("seed", seed, low=0)
        self.graph = RegionGraph.from_json(graph) if isinstance(graph, str) else graph
        self.image_shape = check_image_shape(image_shape)
        if math.prod(self.image_shape) != self.graph.num_variables:
            raise InputError(f"an image of {self.image_shape[0]}×{self.image_shape[1]} has "
                             f"{math.prod(self.image_shape)} pixels; the region graph has {self.graph.num_variables}")
        self.likelihood = get_likelihood(likelihood)
        self._settings = dict(architecture=architecture, hidden_units=hidden_units, latent_dim=latent_dim,
                              num_sums=num_sums, num_components=num_components, seed=seed)
        self.latent_dim, self.num_components = latent_dim, num_components
        self.num_experts = len(self.graph.leaf_regions) * num_components
        self._place_leaves(architecture)
        rng = np.random.default_rng(seed)
        self.encoder, self.decoder = vae.build_experts(
            architecture, self.num_experts, self._leaf_size, hidden_units, latent_dim,
            self.likelihood.num_outputs, rng)
        self.spn = SumProductNetwork(self.graph, num_sums, num_components, seed=int(rng.integers(2**31)), name="spn")
        self.built = True

    def _place_leaves(self, architecture):
        """Lays the leaf regions' pixels out as [leaf regions, pixels], smaller regions padded to the largest.

        A padded pixel is one that is never observed: 0 to the encoder, and no part of p(x | z).
        """
        leaves = self.graph.leaf_regions
        if architecture == "dense":
            self._leaf_size = (1, max(len(leaf.scope) for leaf in leaves))
            places = [np.arange(len(leaf.scope)) for leaf in leaves]
        else:
            boxes = [rectangle(leaf, self.image_shape[1]) for leaf in leaves]
            if None in boxes:
                raise InputError("convolutional experts need rectangular leaf regions; "
                                 f"{leaves[boxes.index(None)]!r} is none")
            self._leaf_size = tuple(max(box[n] for box in boxes) for n in (2, 3))
            places = [np.add.outer(self._leaf_size[1] * np.arange(height), np.arange(width)).ravel()
                      for _, _, height, width in boxes]
        self._leaf_pixels = np.zeros([len(leaves), math.prod(self._leaf_size)], np.int32)
        self._leaf_exists = np.zeros(self._leaf_pixels.shape, bool)
        for row, (leaf, place) in enumerate(zip(leaves, places)):
            self._leaf_pixels[row, place] = leaf.scope
            self._leaf_exists[row, place] = True

    def get_config(self):
        return super().get_config() | self._settings | {
            "graph": self.graph.to_json(), "image_shape": self.image_shape, "likelihood": self.likelihood.name}

    # --- the leaves ---------------------------------------------------------------------------------------------

    def split(self, x):
        """Each expert's part x_l of the images.

        Args:
          x: [batch, pixels], of any dtype.

        Returns:
          [experts, batch, pixels of a leaf]; experts of a leaf region lie side by side.
        """
        # from one row, or XLA would lay the leaves out with the batch last and have all that follows cross it
        places = x.shape[1] * tf.range(tf.shape(x)[0])[:, None] + self._leaf_pixels[:, None]
        leaves = tf.gather(tf.reshape(x, [-1]), places)
        copies = tf.tile(leaves[:, None], [1, self.num_components, 1, 1])
        return tf.reshape(copies, [self.num_experts, -1, leaves.shape[2]])

    def encode(self, x, observed=None):
        """q(z_l | x_l) of every expert.

        An encoder knows leaves without holes only. Where pixels are unobserved it first takes them as 0, then a few
        times as what the decoder makes of the mean of q: any q will do for a bound, and this one brings it much closer.

        Args:
          x: [batch, pixels] in [0, 1].
          observed: bool [batch, pixels]. None: all are observed.

        Returns:
          (mean, precision), each [experts, batch, latent_dim].
        """
        parts = self.split(x if observed is None else tf.where(observed, x, 0))
        exists = self._leaf_exists
        if not exists.all():
            parts *= np.repeat(exists, self.num_components, axis=0)[:, None].astype(parts.dtype.name)
        mean, precision = self.encoder(parts)
        if observed is not None:
            hidden = self._present(~observed)
            for _ in tf.range(FILLING_ROUNDS):
                filled = self.likelihood.mean(self.decode(mean[:, None]))[:, 0]
                mean, precision = self.encoder(tf.where(hidden, filled, parts))
        return mean, precision

    def decode(self, z):
        """The outputs that parametrise p(x_l | z_l).

        Args:
          z: [experts, k, batch, latent_dim].

        Returns:
          A tuple of [experts, k, batch, pixels of a leaf].
        """
        experts, samples, batch, _ = z.shape
        outputs = self.decoder(tf.reshape(z, [experts, samples * batch, z.shape[3]]))
        return tuple(tf.reshape(output, [experts, samples, batch, -1]) for output in outputs)

    def log_weights(self, x, posterior, noise, observed=None):
        """log p(x_l, z_l,i) − log q(z_l,i | x_l) of every expert (the terms of (2)), without the pixels' base measure.

        Args:
          x: [batch, pixels] in [0, 1].
          posterior: (mean, precision) of `encode`.
          noise: standard normal, [experts, k, batch, latent_dim].
          observed: bool [batch, pixels] or None; unobserved pixels drop out of p(x | z).

        Returns:
          [experts, k, batch], nats.
        """
        mean, precision = posterior
        z = iwae.reparametrise(mean, precision, noise)
        return (self.log_likelihood(x, self.decode(z), observed)
                + iwae.log_prior_over_proposal(z, precision, noise))

    def log_likelihood(self, x, outputs, observed=None):
        """log p(x_l | z_l,i) of every expert, without the pixels' base measure.

        Args:
          x: [batch, pixels] in [0, 1].
          outputs: of `decode`.
          observed: bool [batch, pixels] or None; unobserved pixels drop out.

        Returns:
          [experts, k, batch], nats.
        """
        log_kernel = self.likelihood.log_kernel(self.split(x)[:, None], outputs)
        if observed is not None or not self._leaf_exists.all():
            log_kernel = tf.where(self._present(observed)[:, None], log_kernel, 0)
        return sum_last(log_kernel)

    def _present(self, observed):
        """bool [experts, batch or 1, pixels of a leaf]: pixels that exist in the leaf and are observed."""
        exists = np.repeat(self._leaf_exists, self.num_components, axis=0)[:, None]
        return tf.constant(exists) if observed is None else tf.logical_and(self.split(observed), exists)

    def log_base(self, x, observed=None):
        """The base measure Σ_d log h(x_d) of an image, over its observed pixels.

        Args:
          x: [batch, pixels] in [0, 1].
          observed: bool [batch, pixels] or None.

        Returns:
          [batch], nats.
        """
        log_base = self.likelihood.log_base(x)
        return tf.reduce_sum(log_base if observed is None else tf.where(observed, log_base, 0), axis=-1)

    # --- the bound ----------------------------------------------------------------------------------------------

    def combine(self, leaf_bounds, log_base):
        """Theorem 1: an SPN over leaf ELBOs is an ELBO of the whole image (equation 7).

        Args:
          leaf_bounds: [experts, batch], nats, without the base measure.
          log_base: [batch], the base measure of the images.

        Returns:
          [batch], nats per image.
        """
        return self.spn(self.by_region(leaf_bounds)) + log_base

    def by_region(self, experts):
        """[experts, batch] as the SPN has its leaves, [batch, leaf regions, components]."""
        return tf.reshape(tf.transpose(experts), [-1, len(self.graph.leaf_regions), self.num_components])

    def bound(self, x, log_base, noise):
        """Theorem 2: L̂_SP,k(x), the SPN over k-sample IWAE estimates of the leaves (equation 9, algorithm 1).

        Its expectation is a lower bound of log p_SP(x); for one region and one expert it is equation (2).

        Args:
          x: [batch, pixels] in [0, 1].
          log_base: [batch], `log_base(x)`.
          noise: standard normal, [experts, k, batch, latent_dim].

        Returns:
          [batch], nats per image.
        """
        return self.combine(iwae.iwae_bound(self.log_weights(x, self.encode(x), noise)), log_base)

    def noise_shape(self, num_samples, batch):
        """The shape of the standard normal noise that `bound` needs: [experts, k, batch, latent_dim]."""
        return [self.num_experts, num_samples, batch, self.latent_dim]

    def call(self, x, num_samples=5, seed=None):
        """One draw of the bound with k = `num_samples`, for use as a Keras model.

        Args:
          x: [batch, pixels] in [0, 1].
          num_samples: k.
          seed: integer; None draws a fresh one.

        Returns:
          [batch], nats per image.
        """
        x = tf.convert_to_tensor(x)
        bits = random_bits(self.noise_shape(num_samples, x.shape[0]), make_seed(seed))
        return self.bound(x, self.log_base(x), standard_normal(bits, x.dtype))

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
            log_weights = self.log_weights(x, (mean, tf.exp(log_precision)), standard_normal(bits, x.dtype),
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
        log_weights = self.log_weights(x, posterior, standard_normal(bits, x.dtype), observed)
        surplus = tf.range(bits.shape[1]) >= wanted  # of the last chunk
        log_weights = tf.where(surplus[None, :, None], tf.constant(-math.inf, log_weights.dtype), log_weights)
        return iwae.RunningBound.add(state, log_weights)

    @compiled()
    def _finish(self, observed, log_base, state, num_samples):
        leaves = iwae.RunningBound.bound(state, num_samples)
        sizes = iwae.RunningBound.effective_sample_size(state)
        if observed is not None:  # the integral of p(z) is known where nothing is observed
            seen = tf.reduce_any(self._present(observed), axis=-1)
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
