"""The mixture: a sum-product network over VAEs, equations (6), (7) and (9).

    image x ──► leaf regions ──► experts (all at once) ──► L̂_l,k(x_l) ──► SPN ──► L̂_SP,k(x)
                region_graph      experts, likelihoods      iwae          spn      Theorem 2

An expert is one VAE; those of a leaf region lie side by side. Images `x` are [batch, pixels] in [0, 1], with `observed`
bool [batch, pixels] or None (all pixels are). Per-expert tensors are [experts, …, batch, …]; noise and k samples of z
are [experts, k, batch, latent_dim]. Log-densities and bounds are in nats, per image at the root. The base measure of a
pixel, which no parameter enters, is kept apart until the root: see likelihoods.py.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from spvae_tf.errors import InputError, check_choice, check_integer
from spvae_tf.model import experts, iwae
from spvae_tf.model.likelihoods import make_likelihood
from spvae_tf.model.region_graph import RegionGraph, rectangle
from spvae_tf.model.spn import SumProductNetwork
from spvae_tf.ops.functions import gather_parts, sum_last
from spvae_tf.ops.noise import make_seed, random_bits, standard_normal

FILLING_ROUNDS = 4  # of an encoder over its unobserved pixels


class Mixture(keras.Model):
    """A hierarchical decompositional mixture of VAEs (equation 6); raises InputError for arguments out of range.

    Args:
      graph: RegionGraph over the pixels, or its JSON text.
      image_shape: (height, width).
      likelihood: one of likelihoods.LIKELIHOODS.
      architecture: of the experts, "dense", "conv_leaf" or "conv_image".
      hidden_units: H, of each hidden layer of a dense expert, of the one dense layer of a convolutional encoder.
      latent_dim, num_sums, num_components: n_z; K_sum, sums per internal region; K_leaf, experts per leaf region.
      seed: of the initial weights; the same for float32 and float64.
      whole_counts: whether queries of a discrete model raise InputError at a pixel that is no multiple of 1/255. SVHN
        as the authors prepared it has such pixels.
      num_categories: J, of the likelihood "tied_mixture" alone.
    """

    def __init__(self, graph, image_shape, likelihood, architecture="dense", hidden_units=32, latent_dim=25,
                 num_sums=2, num_components=2, seed=0, whole_counts=True, num_categories=8, **kwargs):
        super().__init__(**kwargs)
        check_policy(self.dtype_policy)
        check_integer("hidden_units", hidden_units)
        check_integer("latent_dim", latent_dim)
        check_choice("architecture", architecture, experts.ARCHITECTURES)
        check_integer("seed", seed, low=0)
        self.graph = RegionGraph.from_json(graph) if isinstance(graph, str) else graph
        self.image_shape = check_image_shape(image_shape)
        if math.prod(self.image_shape) != self.graph.num_variables:
            raise InputError(f"an image of {self.image_shape[0]}×{self.image_shape[1]} has "
                             f"{math.prod(self.image_shape)} pixels; the region graph has {self.graph.num_variables}")
        likelihood = make_likelihood(likelihood, num_categories)
        self._settings = dict(architecture=architecture, hidden_units=hidden_units, latent_dim=latent_dim,
                              num_sums=num_sums, num_components=num_components, seed=seed,
                              whole_counts=whole_counts, num_categories=num_categories)
        self.takes_counts = likelihood.of_counts and whole_counts
        self.supports_jit = False  # or Keras would compile `predict` for every size of a batch
        self.latent_dim, self.num_components = latent_dim, num_components
        self.num_experts = len(self.graph.leaf_regions) * num_components
        leaf_size = self._place_leaves(architecture)
        rng = np.random.default_rng(seed)
        self.encoder, self.decoder = experts.build_experts(
            architecture, self.num_experts, leaf_size, hidden_units, latent_dim, likelihood.num_outputs,
            likelihood.width, rng)
        self.spn = SumProductNetwork(self.graph, num_sums, num_components, seed=int(rng.integers(2**31)), name="spn")
        self.likelihood = likelihood  # last, and so its weights
        self.built = True

    def _place_leaves(self, architecture):
        """Lays the leaf regions' pixels out in arrays of one size, (height, width), which is returned.

        `leaf_pixels` int32 [leaf regions, pixels of a leaf] are pixels of the image. A smaller region is padded:
        a pixel that is not in `leaf_exists` (bool) is 0 to the encoder and no part of p(x | z).
        """
        leaves = self.graph.leaf_regions
        if architecture == "dense":
            size = (1, max(len(leaf.scope) for leaf in leaves))
            places = [np.arange(len(leaf.scope)) for leaf in leaves]
        else:
            boxes = [rectangle(leaf, self.image_shape[1]) for leaf in leaves]
            if None in boxes:
                raise InputError("convolutional experts need rectangular leaf regions; "
                                 f"{leaves[boxes.index(None)]!r} is not a rectangle")
            size = tuple(max(box[n] for box in boxes) for n in (2, 3))
            places = [np.add.outer(size[1] * np.arange(box[2]), np.arange(box[3])).ravel() for box in boxes]
        self.leaf_pixels = np.zeros([len(leaves), math.prod(size)], np.int32)
        self.leaf_exists = np.zeros(self.leaf_pixels.shape, bool)
        for row, (leaf, place) in enumerate(zip(leaves, places)):
            self.leaf_pixels[row, place] = leaf.scope
            self.leaf_exists[row, place] = True
        return size

    def get_config(self):
        return super().get_config() | self._settings | {
            "graph": self.graph.to_json(), "image_shape": self.image_shape, "likelihood": self.likelihood.name}

    def bound(self, x, log_base, noise):
        """L̂_SP,k(x), equation (9): the objective of algorithm 1. Its expectation is at most log p_SP(x) (Theorem 2).

        It is [batch]; `log_base` is `log_base(x)`, `noise` standard normal of `noise_shape(k, batch)`. For one region
        and one expert it is the bound of a VAE, equation (2).
        """
        posterior = self.encode(x)                                         # (8)  q(z_l | x_l)
        log_weights, _ = self.log_importance_weights(x, posterior, noise)  #      log p(x_l, z_l,i) − log q(z_l,i | x_l)
        leaf_bounds = iwae.iwae_bound(log_weights)                         # (2)  L̂_l,k(x_l)
        return self.combine(leaf_bounds, log_base)                         # (4), (9)

    def log_importance_weights(self, x, posterior, noise, observed=None):
        """(log p(x_l, z_l,i) − log q(z_l,i | x_l) [experts, k, batch], the outputs of `decode` for these z_l,i).

        These are the log-terms of (2) for every expert, without the base measure. `posterior` is (mean, precision) of
        q(z_l | x_l), as of `encode`.
        """
        mean, precision = posterior
        z = iwae.reparametrise(mean, precision, noise)                       # (8)  z_l,i ~ q
        outputs = self.decode(z)
        log_weights = (self.log_likelihood(x, outputs, observed)             # (3)  log p(x_l | z_l,i)
                       + iwae.log_prior_over_proposal(z, precision, noise))  #      + log p(z_l,i) − log q(z_l,i | x_l)
        return log_weights, outputs

    def combine(self, leaf_bounds, log_base):
        """The SPN over the leaves' bounds [experts, batch], with the base measure [batch]: [batch], nats per image.

        Over leaf ELBOs it is an ELBO, equation (7) (Theorem 1); over their estimates it is equation (9) (Theorem 2).
        """
        return self.spn(self.by_region(leaf_bounds)) + log_base

    def by_region(self, values):
        """[experts, batch] in the layout of the SPN's leaves, [batch, leaf regions, components]."""
        return tf.reshape(tf.transpose(values), [-1, len(self.graph.leaf_regions), self.num_components])

    def noise_shape(self, num_samples, batch):
        """The shape of the noise that `bound` needs."""
        return [self.num_experts, num_samples, batch, self.latent_dim]

    def call(self, x, num_samples=5, seed=None):
        """One draw of the bound with k = `num_samples`, [batch]: what Keras calls, as in `predict`.

        For log p(x) take `log_prob`, which streams any k. The batch size may be unknown; without a `seed` the noise is
        fresh in every call, in a graph too.
        """
        x, _ = tf.convert_to_tensor(x), check_integer("num_samples", num_samples)
        if seed is None and tf.is_symbolic_tensor(x):
            bits_seed = tf.random.uniform([2], tf.int32.min, tf.int32.max, tf.int32)
        else:
            bits_seed = make_seed(seed)
        bits = random_bits(self.noise_shape(num_samples, x.shape[0] or tf.shape(x)[0]), bits_seed)
        return self.bound(x, self.log_base(x), standard_normal(bits, x.dtype))

    def encode(self, x, observed=None):
        """(mean, precision) of q(z_l | x_l) of every expert (8), each [experts, batch, latent_dim].

        Encoders were trained without missing pixels. Unobserved ones start at 0 and are replaced four times by the
        decoder's mean; any q gives a valid bound, this one a tighter one.
        """
        parts = self.split(x if observed is None else tf.where(observed, x, 0))
        if not self.leaf_exists.all():
            parts *= tf.cast(self.present(), parts.dtype)
        mean, precision = self.encoder(parts)
        if observed is not None:
            hidden = self.present(~observed)
            for _ in tf.range(FILLING_ROUNDS):
                filled = self.likelihood.mean(self.decode(mean[:, None]))[:, 0]
                mean, precision = self.encoder(tf.where(hidden, filled, parts))
        return mean, precision

    def decode(self, z):
        """What parametrises p(x_l | z_l) (3), for k samples z: a tuple as in likelihoods.py of
        [experts, k, batch, width · pixels of a leaf]."""
        num_experts, samples, _, latent_dim = z.shape
        outputs = self.decoder(tf.reshape(z, [num_experts, -1, latent_dim]))
        return tuple(tf.reshape(output, [num_experts, samples, -1, output.shape[2]]) for output in outputs)

    def log_likelihood(self, x, outputs, observed=None):
        """log p(x_l | z_l,i) of outputs of `decode`, [experts, k, batch], without the base measure. Given z the pixels
        are independent, so an unobserved one drops out."""
        log_density = self.likelihood.log_density(self.split(x)[:, None], outputs)
        if observed is not None or not self.leaf_exists.all():
            log_density = tf.where(self.present(observed)[:, None], log_density, 0)
        return sum_last(log_density)

    def log_base(self, x, observed=None):
        """The base measure Σ_d log h(x_d) of each image over its observed pixels, [batch]."""
        log_base = self.likelihood.log_base(x)
        return tf.reduce_sum(log_base if observed is None else tf.where(observed, log_base, 0), axis=-1)

    def split(self, x):
        """Each expert's part x_l of x, of any dtype: [experts, batch, pixels of a leaf]."""
        leaves = gather_parts(x, self.leaf_pixels)
        copies = tf.tile(leaves[:, None], [1, self.num_components, 1, 1])
        return tf.reshape(copies, [self.num_experts, -1, leaves.shape[2]])

    def present(self, observed=None):
        """Which pixels exist in the leaf and are observed: bool [experts, batch or 1, pixels of a leaf]."""
        exists = np.repeat(self.leaf_exists, self.num_components, axis=0)[:, None]
        return tf.constant(exists) if observed is None else tf.logical_and(self.split(observed), exists)


def check_policy(policy):
    """Raises InputError unless a dtype policy is Keras' current one, which layers take, and float32 or float64."""
    # with bfloat16, log p(x) of single MNIST images is off by up to 17 nats
    if policy.name not in ("float32", "float64"):
        raise InputError(f"the dtype policy is {policy.name}; log-densities need float32 or float64")
    if keras.config.dtype_policy().name != policy.name:
        raise InputError(f"the model's dtype policy is {policy.name}, Keras' is {keras.config.dtype_policy().name}; "
                         f"call keras.config.set_dtype_policy({policy.name!r}) first")


def check_image_shape(image_shape):
    """(height, width) as integers; raises InputError unless it is a pair of positive ones."""
    try:
        height, width = image_shape
    except (TypeError, ValueError) as error:
        raise InputError(f"image_shape is {image_shape!r}; it must be (height, width)") from error
    return check_integer("height", height), check_integer("width", width)
