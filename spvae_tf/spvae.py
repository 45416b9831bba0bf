"""SPVAE, the class that a user holds: the mixture of model/mixture.py, and what to ask it; the paper's four models."""

import keras

from spvae_tf.errors import InputError
from spvae_tf.model.mixture import Mixture, check_image_shape
from spvae_tf.model.region_graph import poon_domingos, single_region
from spvae_tf.queries import density, images, latent, masks

# name -> (is there an SPN over super-pixels?, experts)
MODELS = {"SPVAE": (True, "dense"), "VAE": (False, "dense"),
          "Conv-SPVAE": (True, "conv_leaf"), "Conv-VAE": (False, "conv_image")}


@keras.saving.register_keras_serializable("spvae_tf")
class SPVAE(Mixture):
    """A hierarchical decompositional mixture of VAEs (equation 6), and its queries; arguments as of `Mixture`.

    A query is a function of a model in queries/ and a method here: `model.sample(n)` is `images.sample(model, n)`.
    """

    def __call__(self, x, *args, **kwargs):
        masks.check_call(self, x)  # Keras would wrap the message of an error in `call`
        return super().__call__(x, *args, **kwargs)

    def call(self, x, num_samples=5, seed=None):
        """As `Mixture.call`; images that a query would refuse raise InputError, or InvalidArgumentError in a graph."""
        return super().call(masks.assert_images(self, x), num_samples, seed)

    log_prob = density.log_prob
    estimate = density.estimate
    conditional_log_prob = density.conditional_log_prob
    outlier_score = density.outlier_score
    diagnose = density.diagnose
    sample = images.sample
    inpaint = images.inpaint
    reconstruct = images.reconstruct
    interpolate = images.interpolate
    posterior = latent.posterior
    most_probable_tree = latent.most_probable_tree
    embed = latent.embed


def canonical_name(model):
    """The key of MODELS that is this name in any capitals; raises InputError when there is none."""
    names = {name.lower(): name for name in MODELS}
    if str(model).lower() not in names:
        raise InputError(f"model is {model!r}; it must be one of {', '.join(MODELS)}")
    return names[str(model).lower()]


def build_model(model, image_shape, likelihood, hidden_units, latent_dim, *, delta=None, graph=None, num_sums=2,
                num_components=2, seed=0, whole_counts=True, num_categories=8, allow_large_graph=False):
    """One of the paper's four models.

    Args:
      model: "SPVAE", "VAE", "Conv-SPVAE" or "Conv-VAE".
      image_shape, likelihood, hidden_units, latent_dim, num_sums, num_components, seed, whole_counts, num_categories:
        as in `Mixture`.
      delta: Δ, side of a super-pixel; None divides the longer side into at most four, 7 pixels each for 28×28 and 8 for
        32×32 (section 4). Ignored by the VAEs, which have a single region and component.
      graph: RegionGraph to use instead of Poon & Domingos' (SPVAE and Conv-SPVAE).
      allow_large_graph: as in `poon_domingos`.

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
        delta = -(-max(image_shape) // 4) if delta is None else delta
        graph = poon_domingos(height, width, delta, allow_large_graph)
    return SPVAE(graph, image_shape, likelihood, architecture, hidden_units, latent_dim, num_sums, num_components, seed,
                 whole_counts, num_categories)
