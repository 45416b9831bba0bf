"""Small models for the queries' tests, images and masks for them, and their exact answers by quadrature."""

import numpy as np
import tensorflow as tf
from oracles import BruteForce, log_sum_exp, quadrature, twin

from spvae_tf.model.region_graph import poon_domingos, random_binary_trees
from spvae_tf.spvae import SPVAE

MANY = 4000  # samples, where an estimate has to be close to the exact value
GRAPHS = {"Poon-Domingos": (poon_domingos(4, 4, 2), (4, 4)),
          "leaf regions that overlap": (random_binary_trees(8, 2, 2, seed=0), (2, 4))}


def make(graph, image_shape, likelihood, scale, num_sums=2, seed=5):
    """A model with a one-dimensional code whose VAEs differ, and whose q(z | x) covers p(z | x)."""
    model = SPVAE(graph, image_shape, likelihood, hidden_units=4, latent_dim=1, num_sums=num_sums, seed=seed)
    rng = np.random.default_rng(6)
    biases = 0.7 if likelihood == "continuous" else 0.1
    for network, factor, spread in ((model.encoder, 0.2, 0.1), (model.decoder, scale, biases)):
        for variable in network.trainable_variables:
            is_bias = variable.name == "bias"
            variable.assign(spread * rng.standard_normal(variable.shape) if is_bias else factor * variable)
    return model


def images(model, batch=3):
    """Anywhere for the wide Gaussians, near one half for the Binomials, so that no VAE is out of the question."""
    low, high = (0, 256) if model.likelihood.name == "continuous" else (118, 139)
    return np.random.default_rng(7).integers(low, high, [batch, model.graph.num_variables]).astype(np.float32) / 255


def mask(model, batch=3):
    """Half of the pixels at random; besides, of image 0 no pixel of the first leaf region, of image 1 all of it."""
    observed = np.random.default_rng(8).random([batch, model.graph.num_variables]) < 0.5
    observed[0, model.graph.leaf_regions[0].scope] = False
    observed[1, model.graph.leaf_regions[0].scope] = True
    return observed


class Exact:
    """What a model with a one-dimensional code says, in float64.

    Attributes:
      leaves: log p_l(x_observed) of every leaf, equation (3), [batch, leaf regions, components].
      trees: every induced tree of equation (5).
      leaf_mean, leaf_square: E[mean(x_d | z)] and E[mean(x_d | z)²] under p(z | x_observed), [experts, batch, pixels].
    """

    def __init__(self, model, x, observed):
        self.trees = BruteForce(model.spn)
        leaves, self.leaf_mean, self.leaf_square = [], [], []
        for scope, outputs, terms in quadrature(twin(model), x, observed):
            leaves.append(log_sum_exp(terms))
            weights, means = np.exp(terms - leaves[-1]), tf.sigmoid(outputs[0]).numpy()[:, 0]
            for moments, power in ((self.leaf_mean, 1), (self.leaf_square, 2)):
                full = np.zeros(x.shape)
                full[:, scope] = np.einsum("zn,zp->np", weights, means**power)
                moments.append(full)
        self.leaves = np.stack(leaves, 1).reshape(len(x), -1, model.num_components)
        self.leaf_mean, self.leaf_square = np.array(self.leaf_mean), np.array(self.leaf_square)

    @property
    def log_prob(self):
        return self.trees.log_prob(self.leaves)

    def chosen(self):
        """P(leaf in tree | x), [batch, experts]."""
        return self.trees.marginals(self.leaves)[:, :self.trees.num_leaves]

    def pixels(self, moments):
        return np.einsum("ne,enp->np", self.chosen(), moments)
