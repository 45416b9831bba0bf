"""Figure 3: the latent space of every leaf VAE, and which of a super-pixel's VAEs each class of images prefers."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from spvae_tf import files
from spvae_tf.errors import InputError, check_integer
from spvae_tf.model.region_graph import rectangle
from spvae_tf.reproduction import pictures
from spvae_tf.training import run as experiment

FIELDS = ("label", "num_images", "row", "column", "left", "right")


def latent_quantiles(steps):
    """The grid of Kingma & Welling's figure: the even grid on the unit square, taken through the inverse normal
    distribution function, so that every cell has the same prior probability.

    Args:
      steps: n, points along each axis.

    Returns:
      float32 [n * n, 2], Φ⁻¹((i + ½) / n): the first coordinate grows from left to right, the second from the bottom
      row to the top row, rows from top to bottom.
    """
    points = tfp.distributions.Normal(0.0, 1.0).quantile((np.arange(steps, dtype=np.float32) + 0.5) / steps).numpy()
    return np.stack(np.meshgrid(points, points[::-1]), axis=-1).reshape(-1, 2)


def leaf_rectangles(model):
    """Where the super-pixels lie.

    Args:
      model: SPVAE with dense or convolutional leaves.

    Returns:
      list of (top, left, height, width) in pixels, one for each leaf region.

    Raises:
      InputError: when a leaf region is no rectangle.
    """
    boxes = [rectangle(region, model.image_shape[1]) for region in model.graph.leaf_regions]
    if None in boxes:
        raise InputError(f"leaf region {model.graph.leaf_regions[boxes.index(None)]!r} is no rectangle")
    return boxes


def manifolds(model, steps=8):
    """The decoder's mean image E[x_l | z_l] of every leaf VAE over a grid of latent quantiles.

    Args:
      model: SPVAE with two-dimensional leaf latents.
      steps: n, points along each axis.

    Returns:
      list over leaf regions of float32 [components, n * n, height, width] in [0, 1], in the order of
      `latent_quantiles`.

    Raises:
      InputError: when a code has not two dimensions.
    """
    check_integer("steps", steps)
    if model.latent_dim != 2:
        raise InputError(f"latent_dim is {model.latent_dim}; a picture of the latent space needs 2")
    codes = tf.broadcast_to(tf.constant(latent_quantiles(steps)), [model.num_experts, 1, steps**2, 2])
    means = model.likelihood.mean(model.decode(codes)).numpy()[:, 0]  # [experts, n², pixels of a leaf]
    means = means.reshape(len(model.graph.leaf_regions), model.num_components, steps**2, -1)
    return [images[..., exists].reshape(*images.shape[:2], height, width)
            for images, exists, (_, _, height, width) in zip(means, model._leaf_exists, leaf_rectangles(model))]


def preferences(model, images, labels, num_samples=100, seed=0):
    """How probable each leaf VAE is for each class: P(the induced tree ends in it | x), averaged over the class.

    Args:
      model: SPVAE.
      images: [n, pixels] in [0, 1].
      labels: integers [n].
      num_samples: k of the leaves' bounds.
      seed: integer.

    Returns:
      dict label -> float32 [leaf regions, components].
    """
    leaves = model.posterior(images, num_samples, seed=seed).leaves.numpy()
    return {int(label): leaves[labels == label].mean(axis=0) for label in np.unique(labels)}


def write_preferences(path, model, preferences, labels):
    """Writes the preferences as CSV, a row for each class and super-pixel.

    Args:
      path: of the CSV.
      model: SPVAE with two components.
      preferences: of `preferences`.
      labels: integers [n], of the images they were averaged over.
    """
    boxes = leaf_rectangles(model)
    tops, lefts = pictures.grid_of(boxes)
    rows = [dict(zip(FIELDS, (label, int((labels == label).sum()), tops.index(box[0]), lefts.index(box[1]),
                              round(float(left), 4), round(float(right), 4))))
            for label, leaves in preferences.items() for box, (left, right) in zip(boxes, leaves)]
    files.write_table(path, rows, FIELDS)


def load_data(config):
    """The data set of a configuration, which must have labels for the preferences.

    Args:
      config: configuration.

    Returns:
      data.Dataset.

    Raises:
      InputError: when the data cannot be loaded or the test images have no labels.
    """
    dataset = experiment.load_data(config)
    _check_labels(dataset)
    return dataset


def _check_labels(dataset):
    if dataset.test_labels is None:
        raise InputError(f"data set {dataset.name} has no labels of the test images")


def draw(model, dataset, steps, table, picture):
    """Figure 3 of a model: the picture, and the preferences as CSV.

    Args:
      model: SPVAE with two components and two-dimensional leaf latents.
      dataset: data.Dataset with labels.
      steps: points along each axis of a latent space.
      table: path of the CSV.
      picture: path of the PNG.

    Raises:
      InputError: when the model or the data are others, or the super-pixels are no grid.
    """
    if model.num_components != 2:
        raise InputError(f"num_components is {model.num_components}; Figure 3 shows a left and a right VAE, 2")
    _check_labels(dataset)
    images, boxes = manifolds(model, steps), leaf_rectangles(model)
    pictures.grid_of(boxes)  # refuses what cannot be drawn before minutes of inference
    preferred = preferences(model, dataset.test, dataset.test_labels)
    write_preferences(table, model, preferred, dataset.test_labels)
    pictures.latent_space(images, boxes, preferred, picture)
