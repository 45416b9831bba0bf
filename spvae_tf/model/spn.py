"""The sum-product network over the leaves: equations (4) and (5) in the log domain, one pass per level.

A leaf region carries `num_components` leaf distributions, an internal region `num_sums` sum nodes, the root one. A
region's products are, for each of its partitions, the cross product of the nodes of the children (section 3.3). Each of
its sums is a mixture of all its products. The way up gives log p(x); the way down, from the root to the leaves, gives
posteriors, induced trees, and the gradient, which is a posterior too.

Shapes: leaf log-densities, in nats, are [batch, leaf regions, components]. Values of nodes are [nodes, batch], leaves
first, then the unit node (log 1), then sums level by level. What a level says of its sums' products is [R, M, S, batch]
for R regions of at most M products and S sums each. Lists of levels run from the leaves to the root. An unnormalised
log-weight stands for each pair of a sum n and its product c; `log_weights` are the normalised log w_nc.
"""

import dataclasses
import functools
import itertools
import math

import keras
import numpy as np
import tensorflow as tf

from spvae_tf.errors import InputError, check_integer
from spvae_tf.model.region_graph import RegionGraph
from spvae_tf.ops.functions import draw_index, log_sum_exp, quotients, ratios, softmax
from spvae_tf.ops.noise import drawn_in_float32

MAX_PRODUCTS = 20_000_000  # some gigabytes


@dataclasses.dataclass(frozen=True)
class Level:
    """The products and sums of all internal regions of one height, padded to the same number of products."""

    regions: tuple  # R regions
    children: np.ndarray  # [R, M, A] child nodes of product m of region r; missing ones point to the unit node (log 1)
    weights: np.ndarray  # [R, M, S] where sum s's weight for product m lies among all; -1 for a missing product
    first_node: int  # the row of the level's first sum; sum s of region r is row first_node + r * S + s

    @property
    def num_sums(self):
        return self.weights.shape[2]


def _products(region, graph, nodes):
    """The products of a region, each the tuple of its child nodes."""
    partitions = graph.partitions_of(region)
    if not partitions:  # a root that is a leaf region: its sum mixes the region's leaves directly
        return [(node,) for node in nodes[region]]
    return [product for partition in partitions
            for product in itertools.product(*(nodes[child] for child in partition.children))]


def compile_levels(graph, num_sums, num_components):
    """Lays nodes out level by level: (list of Level, number of sum weights, number of nodes, the unit node's row)."""
    leaves = graph.leaf_regions
    nodes = {region: range(i * num_components, (i + 1) * num_components) for i, region in enumerate(leaves)}
    unit = len(leaves) * num_components
    next_node, next_weight, levels = unit + 1, 0, []
    root_mixes_leaves = not graph.levels and num_components > 1
    for regions in ((graph.root,),) if root_mixes_leaves else graph.levels:
        sums = 1 if graph.root in regions else num_sums
        products = [_products(region, graph, nodes) for region in regions]
        width, arity = max(map(len, products)), max(len(p) for ps in products for p in ps)
        # missing children and missing products point to the unit node (log 1)
        children = np.full([len(regions), width, arity], unit, np.int32)
        weights = np.full([len(regions), width, sums], -1, np.int32)
        for r, region_products in enumerate(products):
            for m, product in enumerate(region_products):
                children[r, m, :len(product)] = product
            count = len(region_products) * sums
            weights[r, :len(region_products)] = next_weight + np.arange(count).reshape(-1, sums)
            next_weight += count
        levels.append(Level(tuple(regions), children, weights, next_node))
        for r, region in enumerate(regions):
            nodes[region] = range(next_node + r * sums, next_node + (r + 1) * sums)
        next_node += len(regions) * sums
    return levels, next_weight, next_node, unit


def parent_products(levels, num_nodes):
    """The products that each node is a child of: int32 [num_nodes, P].

    Products are numbered from 1 as the way down meets them, level by level from the root; 0 stands for no parent.
    """
    parents, number = [[] for _ in range(num_nodes)], 0
    for level in reversed(levels):
        for region, products in zip(level.children, level.weights[..., 0] >= 0):
            for children, exists in zip(region, products):
                number += 1
                for child in children[:len(children) * exists]:
                    parents[child].append(number)
    return np.array(list(itertools.zip_longest(*parents, fillvalue=0)), np.int32).reshape(-1, num_nodes).T


def weights_by_sum(levels):
    """Where each sum's weights lie among all: int32 [M, sums], in the order of the nodes; -1 for a missing product."""
    columns = [weights for level in levels
               for weights in np.moveaxis(level.weights, 1, 2).reshape(-1, level.weights.shape[1])]
    return np.array(list(itertools.zip_longest(*columns, fillvalue=-1)), np.int32)


def _in_weight_order(values, places):
    """Values that stand for the sum weights at `places`, in the order of the weights, without those at −1."""
    return tf.gather(values, np.argsort(places)[(places < 0).sum():])


@keras.saving.register_keras_serializable("spvae_tf")
class SumProductNetwork(keras.layers.Layer):
    """A sum-product network over a region graph (equations 4 and 5); as a layer it maps leaf log-densities to log p(x).

    Fed with leaf ELBOs its output is an ELBO (Theorem 1); fed with importance-weighted estimates it is an unbiased
    estimate of a lower bound (Theorem 2, equation 9).

    Args:
      graph: RegionGraph, or its JSON text.
      num_sums: K_sum, sums per internal region, a positive integer; the root has one.
      num_components: K_leaf, leaf distributions per leaf region, a positive integer.
      seed: of the initial log-weights, drawn from N(0, 1).
    """

    def __init__(self, graph, num_sums=2, num_components=2, seed=None, **kwargs):
        super().__init__(**kwargs)
        check_integer("num_sums", num_sums)
        check_integer("num_components", num_components)
        self.graph = RegionGraph.from_json(graph) if isinstance(graph, str) else graph
        self.num_sums, self.num_components, self.seed = num_sums, num_components, seed
        self._check_size()
        self.levels, self.num_weights, self.num_nodes, self._unit = compile_levels(self.graph, num_sums, num_components)
        self._root = self.num_nodes - 1 if self.levels else 0  # without a level the only leaf is the root
        self._parents = parent_products(self.levels, self.num_nodes)
        self._weights_by_sum = weights_by_sum(self.levels)
        self.num_sum_nodes = sum(len(level.regions) * level.num_sums for level in self.levels)
        self.num_products = sum(int((level.weights[..., 0] >= 0).sum()) for level in self.levels)
        self.sum_weights = None
        if self.num_weights:
            self.sum_weights = self.add_weight(
                shape=(self.num_weights,), name="sum_weights", dtype=self.variable_dtype,
                initializer=drawn_in_float32(keras.initializers.RandomNormal(0.0, 1.0, seed=seed)))
        self.built = True

    def _check_size(self):
        """Raises InputError for more products than memory holds, before they are laid out."""
        nodes = dict.fromkeys(self.graph.regions, self.num_sums) | dict.fromkeys(self.graph.leaf_regions,
                                                                                 self.num_components)
        count = sum(math.prod(nodes[child] for child in partition.children) for partition in self.graph.partitions)
        if count > MAX_PRODUCTS:
            raise InputError(f"num_sums is {self.num_sums} and num_components {self.num_components}; they make "
                             f"{count:,} products, which may be {MAX_PRODUCTS:,} at most")

    def get_config(self):
        return super().get_config() | {"graph": self.graph.to_json(), "num_sums": self.num_sums,
                                       "num_components": self.num_components, "seed": self.seed}

    def log_weights(self, sum_weights=None):
        """The normalised log w_nc with Σ_c w_nc = 1: for each level [R, M, S]; −∞ where region r has no product m.

        `sum_weights` [num_weights] are the unnormalised log-weights, the layer's own when None.
        """
        if not self.levels:
            return []
        by_sum = self._by_sum(self.sum_weights if sum_weights is None else sum_weights)
        log_weights = by_sum - tf.expand_dims(log_sum_exp(by_sum), 1)
        by_level = []
        for level in self.levels:
            regions, products, sums = level.weights.shape
            first = level.first_node - self._unit - 1
            columns = log_weights[0, :products, first:first + regions * sums]
            by_level.append(tf.transpose(tf.reshape(columns, [products, regions, sums]), [1, 0, 2]))
        return by_level

    def _by_sum(self, sum_weights):
        """The sum weights of all levels [1, M, sums]; −∞ for a missing product."""
        padded = tf.pad(tf.convert_to_tensor(sum_weights), [[1, 0]], constant_values=-np.inf)
        return tf.gather(padded, self._weights_by_sum[None] + 1)

    def upward(self, leaf_log_probs, reduce=log_sum_exp, sum_weights=None):
        """Evaluates every node, from the leaves to the root: (values [nodes, batch], the levels' weighted products).

        `reduce` is what a sum does with its weighted products log w_nc + log p_c(x), [R, M, S, batch] -> [R, S, batch]:
        log-sum-exp for equation (4), the maximum for the most probable induced tree.
        """
        leaf_log_probs = tf.convert_to_tensor(leaf_log_probs)
        self._check(leaf_log_probs)
        leaves = tf.transpose(tf.reshape(leaf_log_probs, [-1, self._unit]))
        values = tf.pad(leaves, [[0, 1], [0, 0]])  # the unit node
        weighted = []
        for level, log_weights in zip(self.levels, self.log_weights(sum_weights)):
            # log Π_c p_c(x_c) = Σ_c log p_c(x_c): [R, M, A, batch] -> [R, M, batch]
            products = tf.reduce_sum(tf.gather(values, level.children), axis=2)
            # log w_nc + log p_c(x), then (4)
            terms = tf.expand_dims(products, 2) + tf.expand_dims(tf.cast(log_weights, products.dtype), 3)
            sums = tf.reshape(reduce(terms), [len(level.regions) * level.num_sums, -1])
            values = tf.concat([values, sums], axis=0)
            weighted.append(terms)
        return values, weighted

    def _check(self, leaf_log_probs):
        expected = (len(self.graph.leaf_regions), self.num_components)
        if leaf_log_probs.shape.rank != 3 or tuple(leaf_log_probs.shape[1:]) != expected:
            raise InputError(f"leaf_log_probs has shape {tuple(leaf_log_probs.shape)}; "
                             f"it must be [batch, {expected[0]}, {expected[1]}]")

    def __call__(self, leaf_log_probs):
        self._check(tf.convert_to_tensor(leaf_log_probs))  # Keras would wrap the message of an error in `call`
        return super().__call__(leaf_log_probs)

    def call(self, leaf_log_probs):
        """log p(x) of equation (5), [batch]; raises InputError unless `leaf_log_probs` has the module's shape."""
        if self.sum_weights is None:
            return self.upward(leaf_log_probs)[0][self._root]
        return self._log_prob(tf.convert_to_tensor(leaf_log_probs), tf.convert_to_tensor(self.sum_weights))

    @tf.custom_gradient
    def _log_prob(self, leaf_log_probs, sum_weights):
        """`call`, with its gradient as one pass down the network.

        ∂ log p(x) / ∂ log p_l(x) = P(leaf l is in the induced tree | x), and for the log-weight of sum n's child c,
        ∂ log p(x) / ∂ log w_nc = P(n is in the tree, y_n = c | x); normalising subtracts w_nc P(n in tree | x).
        Second derivatives are NaN where a region is impossible.
        """
        parts = []  # of each level, what log-sum-exp and softmax have in common

        def log_sum_exp_of_level(terms):
            parts.append(ratios(terms))
            _, total, top = parts[-1]
            return tf.math.log(total) + top

        values, _ = self.upward(leaf_log_probs, log_sum_exp_of_level, sum_weights)

        def gradient(upstream):
            reached, edges = self.downward([quotients(terms, total) for terms, total, _ in parts], upstream)
            taken, sums = (tf.cast(tf.reduce_sum(t, axis=-1), sum_weights.dtype)
                           for t in (self.by_weight(edges), reached[self._unit + 1:]))
            normaliser = tf.reshape(softmax(self._by_sum(sum_weights)) * sums, [-1])
            return self.leaf_nodes(reached), taken - _in_weight_order(normaliser, self._weights_by_sum.ravel())

        return values[self._root], gradient

    def downward(self, choices, top):
        """Passes the probability of being part of the induced tree from the root to the leaves.

        `choices` are the levels' probabilities that a sum in the tree takes product m. With their posterior this gives
        every node's posterior probability; with one-hot choices it gives the induced tree they select. Returns
        (reached [nodes, batch], P(node in tree); the levels' edges, P(sum in tree and takes product m)), times `top`.
        """
        reached, edges = [top[None]], []
        flows = tf.zeros_like(reached[0])  # through all products met so far; row 0 stands for no parent
        below = [*((level.first_node, len(level.regions) * level.num_sums) for level in self.levels[-2::-1]),
                 (0, self._unit)]
        for level, choice, (first, count) in zip(reversed(self.levels), reversed(choices), below):
            parents = self._parents[first:first + count]
            sums = tf.reshape(reached[-1], [len(level.regions), 1, level.num_sums, -1])
            edges.append(choice * sums)
            products = tf.reshape(tf.reduce_sum(edges[-1], axis=2), [level.children[..., 0].size, -1])
            flows = tf.concat([flows, products], axis=0)
            reached.append(tf.reduce_sum(tf.gather(flows, parents[:, parents.any(axis=0)]), axis=1))
        unit = tf.zeros_like(top)[None]
        return tf.concat([reached[-1], unit, *reached[-2::-1]], axis=0), edges[::-1]

    def by_weight(self, edges):
        """What each level has for its sums' children, [R, M, S, batch], in the order of the sum weights, [n, batch]."""
        places = [level.weights.ravel() for level in self.levels]
        rows = [tf.reshape(edge, [p.size, -1]) for edge, p in zip(edges, places)]
        return _in_weight_order(tf.concat(rows, axis=0), np.concatenate(places))

    def leaf_nodes(self, nodes):
        """The leaves' rows of a [nodes, batch] array as [batch, leaf regions, components]."""
        leaves = tf.transpose(nodes[:self._unit])
        return tf.reshape(leaves, [-1, len(self.graph.leaf_regions), self.num_components])

    def posterior(self, leaf_log_probs):
        """The posterior of the latent variables y: (P(node in tree | x) [nodes, batch], the levels' P(y_n = m | x, n in
        tree))."""
        values, weighted = self.upward(leaf_log_probs)
        choices = [softmax(terms) for terms in weighted]
        return self.downward(choices, tf.ones_like(values[self._root]))[0], choices

    def most_probable_tree(self, leaf_log_probs):
        """The induced tree T that maximises Π w_nc Π p_l(x_l): (0 or 1 of each node [nodes, batch], the tree's
        log-term of equation 5 [batch])."""
        values, weighted = self.upward(leaf_log_probs, reduce=functools.partial(tf.reduce_max, axis=1))
        choices = [tf.one_hot(tf.argmax(w, axis=1), w.shape[1], axis=1, dtype=w.dtype) for w in weighted]
        return self.downward(choices, tf.ones_like(values[self._root]))[0], values[self._root]

    def sample_trees(self, choice_logits, uniforms, batch):
        """Draws `batch` induced trees top-down: 0 or 1 of each node, [nodes, batch].

        `choice_logits` are the levels' log-probabilities of the products: the weighted products of `upward` for trees
        given x, the log-weights for trees from the prior. `uniforms`, each [R, S, batch], are uniform on [0, 1).
        """
        choices = [tf.one_hot(draw_index(softmax(logits), uniform), logits.shape[1], axis=1, dtype=logits.dtype)
                   for logits, uniform in zip(choice_logits, uniforms)]
        return self.downward(choices, tf.ones([batch], self.compute_dtype))[0]
