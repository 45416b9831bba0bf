"""Figure 3: the latent space of every leaf VAE, and which of a super-pixel's VAEs each class of images prefers."""

import numpy as np
import tensorflow as tf

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.reproduction import pictures

FIELDS = ("label", "num_images", "row", "column", "left", "right")


def check_labels(dataset):
    """Raises InputError unless the test images have labels; the preferences need them."""
    if dataset.test_labels is None:
        raise InputError(f"data set {dataset.name} has no labels of the test images")


def draw(model, dataset, steps, table, picture):
    """Draws Figure 3 of an SPVAE, writes its preferences as CSV; raises InputError unless it has two VAEs per leaf."""
    if model.num_components != 2:
        raise InputError(f"num_components is {model.num_components}; Figure 3 shows a left and a right VAE, 2")
    boxes = pictures.boxes_of(model.graph.leaf_regions, model.image_shape[1])
    images = manifolds(model, boxes, steps)
    tops, lefts = pictures.grid_of(boxes)
    preferred = preferences(model, dataset.test, dataset.test_labels)
    rows = [dict(zip(FIELDS, (label, int((dataset.test_labels == label).sum()), tops.index(top), lefts.index(start),
                              round(float(left), 4), round(float(right), 4))))
            for label, leaves in preferred.items() for (top, start, _, _), (left, right) in zip(boxes, leaves)]
    files.write_table(table, rows, FIELDS)
    pictures.latent_space(images, boxes, preferred, picture)


def latent_quantiles(steps):
    """Codes at equal steps of prior probability (Kingma & Welling), Φ⁻¹((i + ½) / steps): float32 [steps², 2]."""
    points = tf.math.ndtri((np.arange(steps, dtype=np.float32) + 0.5) / steps).numpy()
    return np.stack(np.meshgrid(points, points[::-1]), axis=-1).reshape(-1, 2)


def manifolds(model, boxes, steps):
    """E[x_l | z_l] of every leaf VAE at `latent_quantiles`: list over boxes of [components, steps², height, width]."""
    if model.latent_dim != 2:
        raise InputError(f"latent_dim is {model.latent_dim}; a picture of the latent space needs 2")
    codes = tf.broadcast_to(tf.constant(latent_quantiles(steps)), [model.num_experts, 1, steps**2, 2])
    means = model.likelihood.mean(model.decode(codes)).numpy()[:, 0]  # [experts, steps², pixels of a leaf]
    means = means.reshape(len(model.graph.leaf_regions), model.num_components, steps**2, -1)
    return [images[..., exists].reshape(*images.shape[:2], height, width)
            for images, exists, (_, _, height, width) in zip(means, model.leaf_exists, boxes)]


def preferences(model, images, labels):
    """P(the induced tree ends in a leaf VAE | x), averaged over a class: dict label -> [leaf regions, components]."""
    leaves = model.posterior(images, num_samples=100, seed=0).leaves.numpy()
    return {int(label): leaves[labels == label].mean(axis=0) for label in np.unique(labels)}
