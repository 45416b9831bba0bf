"""START HERE: the SPVAE as the paper writes it, one leaf and one region at a time.

Read from top to bottom: a leaf's bound, equation (2), with its encoder (8) and decoder (3); the sum-product network of
equations (4) and (5); and the bound of the whole image, equations (6) and (9). Then come the networks of section 4.

    log p_SP(x) ≥ E[L̂_SP,k(x)],    L̂_SP,k(x) = log Σ_T Π w_nc Π_l exp L̂_l,k(x_l)                        Theorem 2

`mixture.py` computes the same for all leaves at once; the tests and scripts/benchmark.py hold it to this module. Images
`x` are [batch, pixels] in [0, 1]; log-densities and bounds are in nats.
"""

import functools
import itertools
import math

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from spvae_tf.model.region_graph import rectangle

tfd = tfp.distributions
layers = keras.layers

NUM_TRIALS = 255


def leaf_bound(vae, pixel_log_probs, x, noise):
    """L̂_l,k(x_l) = log (1/k) Σ_i p(x_l | z_l,i) p(z_l,i) / q(z_l,i | x_l), equation (2): [batch].

    Of x_l [batch, pixels of the leaf region], DenseVAE or ConvVAE, with standard normal noise [k, batch, latent_dim];
    `pixel_log_probs` is one of PIXEL_LOG_PROBS.
    """
    mean, precision = vae.encode(x)
    q = tfd.Normal(mean, precision**-0.5)                                              # (8)  q(z_l | x_l)
    z = q.loc + q.scale * noise                                                        #      z_l,i ~ q
    outputs = [tf.reshape(output, [*z.shape[:2], -1]) for output in vae.decode(tf.reshape(z, [-1, z.shape[2]]))]
    log_weights = (tf.reduce_sum(pixel_log_probs(x, *outputs), -1)                     # (3)  log p(x_l | z_l,i)
                   + tf.reduce_sum(tfd.Normal(0.0, 1.0).log_prob(z), -1)               #      + log p(z_l,i)
                   - tf.reduce_sum(q.log_prob(z), -1))                                 #      − log q(z_l,i | x_l)
    return tf.reduce_logsumexp(log_weights, axis=0) - math.log(z.shape[0])


def gaussian(x, logit, root):
    """log p(x_d | z) of every pixel (section 4), from two decoder outputs [k, batch, pixels]."""
    return tfd.Normal(tf.sigmoid(logit), (1 + root**2)**-0.5).log_prob(x)


def binomial(x, logit):
    """log p(255 x_d | z) of every pixel (section 4), from one decoder output [k, batch, pixels]."""
    successes, failures = NUM_TRIALS * x, NUM_TRIALS * (1 - x)
    probs = tf.sigmoid(logit) * (1 - 2e-7) + 1e-7
    log_coefficient = math.lgamma(NUM_TRIALS + 1) - tf.math.lgamma(successes + 1) - tf.math.lgamma(failures + 1)
    return log_coefficient + successes * tf.math.log(probs + 1e-7) + failures * tf.math.log(1 - probs + 1e-7)


# Not in the paper: other likelihoods of counts. An output [k, batch, width · pixels] holds a pixel's numbers `pixels`
# apart.

def beta_binomial(x, root_alpha, root_beta):
    """log p(255 x_d | z) for p ~ Beta(α, β) in a Binomial(255, p)."""
    alpha, beta = (tf.minimum(1e-4 + tf.nn.softplus(root), 1e4) for root in (root_alpha, root_beta))
    return tfd.BetaBinomial(tf.cast(NUM_TRIALS, x.dtype), alpha, beta).log_prob(tf.round(NUM_TRIALS * x))


def rounded_logistic(location, scale):
    """The distribution of a logistic variable, in grey levels, rounded to 0 … 255."""
    location, scale = NUM_TRIALS * (0.5 + location), 0.05 + 32 * tf.nn.softplus(scale)
    return tfd.QuantizedDistribution(tfd.Logistic(location - 0.5, scale), low=0.0, high=float(NUM_TRIALS))  # ⌈x − ½⌉


def logistic(x, location, scale):
    """log p(255 x_d | z) of a logistic distribution rounded to counts."""
    return rounded_logistic(location, scale).log_prob(tf.round(NUM_TRIALS * x))


def logistic_mixture(x, *outputs):
    """log p(255 x_d | z) of a mixture of three rounded logistic distributions."""
    logits, locations, scales = (tf.stack(tf.split(output, 3, axis=-1), axis=-1) for output in outputs)
    log_probs = rounded_logistic(locations, scales).log_prob(tf.round(NUM_TRIALS * x)[..., None])
    return tf.reduce_logsumexp(tf.nn.log_softmax(logits) + log_probs, axis=-1)


def categorical(x, logits):
    """log p(255 x_d | z) of any distribution over the 256 counts."""
    logits = tf.stack(tf.split(logits, NUM_TRIALS + 1, axis=-1), axis=-1)
    return tfd.Categorical(logits).log_prob(tf.round(NUM_TRIALS * x))


def tied_mixture(table, x, logits):
    """log Σ_j π_dj T_j(255 x_d) with the distributions T_j of the table [J, 256], which all pixels share."""
    weights = tf.nn.softmax(tf.stack(tf.split(logits, table.shape[0], axis=-1), axis=-1))
    categories = tf.cast((1 - 1e-6) * tf.nn.softmax(table) + 1e-6 / (NUM_TRIALS + 1), x.dtype)
    found = tf.gather(tf.transpose(categories), tf.cast(tf.round(NUM_TRIALS * x), tf.int32))
    return tf.math.log(tf.reduce_sum(weights * found, axis=-1))


PIXEL_LOG_PROBS = {"continuous": gaussian, "discrete": binomial, "beta_binomial": beta_binomial, "logistic": logistic,
                   "logistic_mixture": logistic_mixture, "categorical": categorical, "tied_mixture": tied_mixture}


def sums(products, weights):
    """log Σ_c w_nc p_c(x), equation (4), [batch, sums]; unnormalised log-weights are [products, sums]."""
    log_weights = tf.nn.log_softmax(weights, axis=0)
    return tf.reduce_logsumexp(products[:, :, None] + log_weights, axis=1)


def cross_product(left, right):
    """Log-products of every node on the left with every node on the right; the right ones run fastest."""
    return tf.reshape(left[:, :, None] + right[:, None, :], [-1, left.shape[1] * right.shape[1]])


class PlainSPVAE:
    """The mixture of VAEs, equation (6), with weights of its own; graph and settings are those of a Mixture."""

    def __init__(self, model):
        settings = model.get_config()
        self.graph, likelihood = model.graph, model.likelihood
        self.pixel_log_probs, self.table = PIXEL_LOG_PROBS[likelihood.name], []
        if likelihood.name == "tied_mixture":
            self.table = [tf.Variable(likelihood.table)]
            self.pixel_log_probs = functools.partial(tied_mixture, *self.table)
        self.num_components = settings["num_components"]
        boxes = [rectangle(leaf, model.image_shape[1]) for leaf in self.graph.leaf_regions]
        sizes = [box[2:] if box else (1, len(leaf.scope)) for box, leaf in zip(boxes, self.graph.leaf_regions)]
        networks = settings["hidden_units"], settings["latent_dim"], likelihood.num_outputs, likelihood.width
        filters, stride = ((4, 8), 1) if settings["architecture"] == "conv_leaf" else ((32, 64), 2)
        frame = tuple(max(side) for side in zip(*sizes))
        self.experts = [
            DenseVAE(size, *networks) if settings["architecture"] == "dense"
            else ConvVAE(size, frame, filters, stride, *networks)
            for size in sizes for _ in range(self.num_components)]
        self.sum_weights, num_nodes = {}, dict.fromkeys(self.graph.leaf_regions, self.num_components)
        for region in itertools.chain.from_iterable(self.graph.levels or [[self.graph.root]]):
            products = sum(math.prod(num_nodes[child] for child in partition.children)
                           for partition in self.graph.partitions_of(region)) or self.num_components
            num_nodes[region] = 1 if region == self.graph.root else settings["num_sums"]
            if self.graph.levels or products > 1:  # a single leaf distribution is the root itself
                self.sum_weights[region] = tf.Variable(tf.random.normal([products, num_nodes[region]]))

    def bound(self, x, noise):
        """L̂_SP,k(x), equation (9), [batch]: the SPN evaluated on the leaves' importance-weighted bounds.

        The noise is standard normal, [experts, k, batch, latent_dim]; experts of a leaf region lie side by side.
        """
        leaves = {}
        for number, leaf in enumerate(self.graph.leaf_regions):
            experts = range(number * self.num_components, (number + 1) * self.num_components)
            part = tf.gather(x, leaf.scope, axis=1)                                    #      x_l
            bounds = [leaf_bound(self.experts[e], self.pixel_log_probs, part, noise[e]) for e in experts]
            leaves[leaf] = tf.stack(bounds, axis=-1)
        return self._nodes(self.graph.root, leaves, {})[:, 0]

    def _nodes(self, region, leaves, done):
        """The log-values [batch, nodes] of a region's nodes; `done` are those of regions met before.

        A region's products are those of each partition's children's nodes; its sums mix all of them (section 3.3).
        """
        if region not in done:
            partitions = self.graph.partitions_of(region)
            children = [[self._nodes(child, leaves, done) for child in split.children] for split in partitions]
            products = [functools.reduce(cross_product, nodes) for nodes in children]
            products = tf.concat(products, axis=-1) if partitions else leaves[region]
            mixed = region in self.sum_weights
            done[region] = sums(products, self.sum_weights[region]) if mixed else products
        return done[region]

    @property
    def trainable_variables(self):
        """All weights: experts' kernels and biases, each region's unnormalised log-weights, the likelihood's table."""
        networks = [weight.value for expert in self.experts for layer in expert.layers for weight in layer.weights]
        return networks + list(self.sum_weights.values()) + self.table

    def counterparts(self, model):
        """Yields (plain variable, stacked variable, index): plain variable = stacked variable[index] of the `model`.

        That model pads smaller leaf regions, and with them the first and last kernel of dense experts; a plain kernel
        is then a corner of its own, or, where a pixel has several numbers, a corner for each.
        """
        encoder, decoder = model.encoder, model.decoder
        if isinstance(self.experts[0], DenseVAE):  # layers, and which of a layer's heads
            stacked = [(layer, head, model.likelihood.width if layer is decoder.heads.dense[-1] else 1)
                       for network in (encoder.heads, decoder.heads)
                       for head in range(network.num_heads) for layer in network.dense]
        else:
            stacked = [(layer, 0, 1) for layer in (*encoder.trunk, encoder.mean, encoder.precision,
                                                   decoder.dense, decoder.deconv, *decoder.heads)]
        for number, expert in enumerate(self.experts):
            for plain_layer, (layer, head, width) in zip(expert.layers, stacked, strict=True):
                row = head * len(self.experts) + number
                kernel, bias = plain_layer.kernel.value, plain_layer.bias.value
                yield kernel, layer.kernel.value, (row, *corner(kernel, layer.kernel, width))
                yield bias, layer.bias.value, (row, 0, *corner(bias, layer.bias, width))
        for level in model.spn.levels:
            for region, places in zip(level.regions, level.weights):
                yield self.sum_weights[region], model.spn.sum_weights.value, places[places[:, 0] >= 0]
        for table in self.table:
            yield table, model.likelihood.table.value, ...

    def copy_weights(self, model):
        """Takes over the weights of the model that this one was built from, expert by expert."""
        for variable, stacked, index in self.counterparts(model):
            variable.assign(stacked.numpy()[index])


def corner(plain, stacked, width):
    """Which elements of one expert's part of a stacked variable a plain one has; the last axis is `width` axes long."""
    *others, last = plain.shape
    columns = np.arange(stacked.shape[-1]).reshape(width, -1)[:, :last // width]
    return np.ix_(*map(range, others), columns.ravel())


# The networks of section 4. A VAE has `encode`, [batch, pixels] -> mean and precision [batch, latent_dim] of q(z | x),
# and `decode`, [rows, latent_dim] -> outputs [rows, width · pixels] of p(x | z): two for the Gaussian, one for the
# Binomial, both of width 1.

def perceptron(widths):
    """Dense layers of the widths (inputs, hidden, …, outputs): softplus, linear at the end."""
    inputs, *hidden, outputs = widths
    return keras.Sequential([keras.Input([inputs]), *(layers.Dense(units, "softplus") for units in hidden),
                             layers.Dense(outputs)])


class DenseVAE:
    """A VAE of perceptrons with two hidden layers: for the mean, the precision, and each output of p(x | z)."""

    def __init__(self, size, hidden_units, latent_dim, num_outputs, width):
        pixels, hidden = math.prod(size), (hidden_units, hidden_units)
        self.mean, self.precision = [perceptron((pixels, *hidden, latent_dim)) for _ in range(2)]
        self.heads = [perceptron((latent_dim, *hidden, width * pixels)) for _ in range(num_outputs)]
        self.layers = [layer for model in (self.mean, self.precision, *self.heads) for layer in model.layers]

    def encode(self, x):
        return self.mean(x), 1 + self.precision(x)**2

    def decode(self, z):
        return [head(z) for head in self.heads]


class ConvVAE:
    """A convolutional VAE: conv, conv, dense(H), {mean, precision}; dense, deconv, {a deconv per output}.

    The leaf region has (height, width) `size`, the network's image `frame`: the leaf region is at its top left, the
    rest black. `filters` and `stride` are those of the two convolutions.
    """

    def __init__(self, size, frame, filters, stride, hidden_units, latent_dim, num_outputs, width):
        margins = [(0, whole - part) for whole, part in zip(frame, size)]
        pad = [layers.ZeroPadding2D(margins)] if size != frame else []
        crop = [layers.Cropping2D(margins)] if size != frame else []
        middle, small = [[-(-n // stride**power) for n in frame] for power in (1, 2)]
        self.trunk = keras.Sequential([
            keras.Input([math.prod(size)]), layers.Reshape([*size, 1]), *pad,
            *(layers.Conv2D(count, 3, stride, "same", activation="softplus") for count in filters),
            layers.Flatten(), layers.Dense(hidden_units, "softplus")])
        self.mean, self.precision = [perceptron((hidden_units, latent_dim)) for _ in range(2)]
        self.expand = keras.Sequential([
            keras.Input([latent_dim]), layers.Dense(math.prod(small) * filters[1], "softplus"),
            layers.Reshape([*small, filters[1]]), deconv(filters[0], small, middle, stride, "softplus")])
        self.heads = [keras.Sequential([
            keras.Input([*middle, filters[0]]), deconv(width, middle, frame, stride), *crop, layers.Permute([3, 1, 2]),
            layers.Flatten()])
            for _ in range(num_outputs)]
        models = self.trunk, self.mean, self.precision, self.expand, *self.heads
        self.layers = [layer for model in models for layer in model.layers if layer.weights]

    def encode(self, x):
        hidden = self.trunk(x)
        return self.mean(hidden), 1 + self.precision(hidden)**2

    def decode(self, z):
        hidden = self.expand(z)
        return [head(hidden) for head in self.heads]


def deconv(filters, small, large, stride, activation=None):
    """A transposed convolution 3×3 from images of one (height, width) to another."""
    # "same" convolutions take n·stride and n·stride − 1 pixels both to n; Keras must be told the way back
    surplus = [m - (n - 1) * stride - 1 for n, m in zip(small, large)]
    return layers.Conv2DTranspose(filters, 3, stride, "same", output_padding=surplus, activation=activation)
