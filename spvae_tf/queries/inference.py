"""What one can ask an SPVAE besides log p(x): samples, conditionals, posteriors, missing pixels, embeddings.

Every query goes the same way. The experts give importance-weighted bounds of their leaves (model.py, equation 2); the
SPN turns them into probabilities of its latent variables y (spn.py), of induced trees, hence of leaf VAEs; those
weigh, or choose among, what the VAEs say about the pixels. Leaves that do not see a pixel cost nothing: they are log 1.

Answers are estimates by k = `num_samples` importance samples per expert, exact as k grows. A seed makes them
repeatable: same batch of images, same seed, same answer; an image's noise goes with its place in the batch.
"""

import functools
import itertools
import math
import numbers
import typing

import numpy as np
import tensorflow as tf

from spvae_tf.errors import InputError, check_integer
from spvae_tf.model import iwae
from spvae_tf.ops.device import compiled
from spvae_tf.ops.noise import make_seed, random_bits, split, standard_normal, uniform
from spvae_tf.queries.batches import check_image_array, check_images, check_mask, in_batches

BATCH = 100  # images at a time
ROWS = 1000  # images times samples, or times steps, that are decoded at a time


class Posterior(typing.NamedTuple):
    """P(latent states of the SPN | x); `regions` and `products` are those of `spn.levels`, from the leaves to the root.

    Attributes:
      leaves: [batch, leaf regions, components], P(the induced tree ends in this VAE | x); a row sums to one where
        every tree uses the leaf region, as in Poon–Domingos graphs.
      children: for each level [batch, regions, sums, products], P(y_n = product | x, sum n is in the tree); each row
        sums to one.
      sums: for each level [batch, regions, sums], P(sum n is in the tree | x).
      partitions: [batch, partitions], P(the tree splits a region so | x), in the order of `graph.partitions`; over
        the partitions of the root they sum to one.
    """

    leaves: tf.Tensor
    children: tuple
    sums: tuple
    partitions: tf.Tensor


class Tree(typing.NamedTuple):
    """A most probable induced tree.

    Attributes:
      log_prob: [batch], nats: log Π w_nc Π p_l(x_l) of this tree, its term of equation (5).
      leaves: [batch, leaf regions, components], 1 for the tree's VAEs, 0 for all others.
      nodes: [batch, nodes], the same for all nodes of the SPN, in the order of `spn.upward`.
      reconstruction: [batch, pixels], E[x | z] of the tree's VAEs at the means of their q(z | x), or of p(z) where a
        leaf sees no pixel.
    """

    log_prob: tf.Tensor
    leaves: tf.Tensor
    nodes: tf.Tensor
    reconstruction: tf.Tensor


class Outliers(typing.NamedTuple):
    """How little a model expects of images.

    Attributes:
      score: [batch], −log p(x), nats per image.
      heat: [batch, pixels], nats per pixel: −log p(x_l) of the leaf region l that holds the pixel, over its size.
    """

    score: tf.Tensor
    heat: tf.Tensor


class Diagnostics(typing.NamedTuple):
    """How far a log-likelihood is to be trusted.

    Attributes:
      log_prob: [batch], nats per image, as `log_prob` gives it.
      standard_error: [batch], nats: of log_prob over the samples of z, by the delta method.
      effective_sample_size: [batch, leaf regions, components], between 1 and k.
      num_samples: [batch, rungs], k = 1, 2, 4, … up to the one asked for.
      bounds: [batch, rungs], nats per image: the bound from the first so many of the same samples.
      levelled_off: [batch], the smallest k on the ladder from which on every bound is within the tolerance of the
        last; the last k itself says that no levelling off was seen.
    """

    log_prob: tf.Tensor
    standard_error: tf.Tensor
    effective_sample_size: tf.Tensor
    num_samples: tf.Tensor
    bounds: tf.Tensor
    levelled_off: tf.Tensor


class Queries:
    """The queries of an SPVAE, which inherits them; it brings the experts, the SPN and `estimate`."""

    # --- sampling -----------------------------------------------------------------------------------------------

    def sample(self, n, mean=True, seed=None):
        """New images: an induced tree from the root down, then z ~ N(0, I) for its VAEs (equations 5 and 3).

        Args:
          n: how many.
          mean: True gives E[x | z], which lies in [0, 1]. False draws from p(x | z): multiples of 1/255 in [0, 1] for
            the Binomial; for the Gaussian any real number, as its deviation is up to 1, and nothing is clipped.
          seed: integer; None draws a fresh one.

        Returns:
          Tensor [n, pixels].

        Raises:
          InputError: when n is no positive integer.
        """
        n = check_integer("n", n)
        return in_batches(lambda rows, seed: self._samples(rows.shape[0], mean, seed), [np.arange(n)],
                          make_seed(seed), ROWS)

    def _samples(self, batch, mean, seed):
        seeds = split(seed, 3)
        outputs = self._sampled(random_bits(self.noise_shape(1, batch), seeds[0]),
                                self._tree_bits(batch, seeds[1]))
        return self._pixels(outputs, mean, seeds[2])

    @compiled()
    def _sampled(self, bits, tree_bits):
        """Decoder outputs [n, pixels] of trees and codes from the prior."""
        batch = bits.shape[2]
        outputs = self.decode(standard_normal(bits, self.variable_dtype))
        trees = self.spn.sample_trees(
            self._tree_prior(batch), [uniform(w, self.variable_dtype) for w in tree_bits], batch)
        return tuple(self._assemble(output[:, 0], self.spn.leaf_nodes(trees)) for output in outputs)

    def _tree_bits(self, batch, seed):
        """Random bits for `sample_trees`: for each level [regions, sums, batch]."""
        if not self.spn.levels:
            return []
        sizes = [len(level.regions) * level.num_sums for level in self.spn.levels]
        bits = tf.split(random_bits([sum(sizes), batch], seed), sizes)
        return [tf.reshape(w, [len(level.regions), level.num_sums, batch])
                for w, level in zip(bits, self.spn.levels)]

    def _pixels(self, outputs, mean, seed):
        """E[x | z], or a draw from p(x | z), of decoder outputs."""
        return self.likelihood.mean(outputs) if mean else self._draw(outputs, seed)

    @compiled(jit=False)
    def _draw(self, outputs, seed):
        return self.likelihood.draw(outputs, seed)

    def _assemble(self, parts, weights):
        """Images from the leaf experts' parts: each pixel the weighted sum over the leaves that hold it.

        Args:
          parts: [experts, rows, pixels of a leaf].
          weights: [rows, leaf regions, components], which sum to one over the leaves that hold a pixel: a one-hot
            choice for a tree's own image, posterior probabilities for the mean over trees.

        Returns:
          [rows, pixels].
        """
        regions, components = weights.shape[1:]
        parts = tf.reshape(parts, [regions, components, *parts.shape[1:]])
        mixed = tf.reshape(tf.einsum("rknp,nrk->rpn", parts, weights), [-1, weights.shape[0]])
        return tf.transpose(tf.reduce_sum(tf.gather(tf.pad(mixed, [[0, 1], [0, 0]]), self._places), axis=1))

    @functools.cached_property
    def _places(self):
        """[pixels, m]: where in the leaf regions' pixels [leaf regions × pixels of a leaf] a pixel lies, up to m times;
        filled up with one past the end."""
        rows = np.flatnonzero(self.leaf_exists)
        pixels = self.leaf_pixels.reshape(-1)[rows]
        found = [rows[pixels == pixel] for pixel in range(self.graph.num_variables)]
        return np.array(list(itertools.zip_longest(*found, fillvalue=self.leaf_pixels.size)), np.int32).T

    # --- conditionals -------------------------------------------------------------------------------------------

    def conditional_log_prob(self, x, query, evidence, num_samples=1000, seed=None, refinements=0):
        """log p(x_query | x_evidence) = log p(x_query, x_evidence) − log p(x_evidence).

        Both are estimated with the same noise, so that what they share cancels. The difference of two lower bounds is
        no bound; it is as good as the looser of the two.

        Args:
          x: [batch, pixels] in [0, 1]; what stands outside both masks does not matter and may be NaN.
          query: bool [batch, pixels], the pixels whose density is asked for.
          evidence: bool [batch, pixels], the pixels that are known; none gives the marginal of the query.
          num_samples: k.
          seed: integer; None draws a fresh one.
          refinements: as in `log_prob`, for both bounds. Without them, under a mask that cuts through a leaf region,
            one bound can be looser than the other by hundreds of nats.

        Returns:
          Tensor [batch], nats per image.

        Raises:
          InputError: on masks that overlap, a wrong shape or dtype, a pixel outside [0, 1] or NaN, a k below 1 or
            negative refinements.
        """
        x = check_image_array(x, self.graph.num_variables)
        query, evidence = check_mask("query", query, x.shape), check_mask("evidence", evidence, x.shape)
        both = query & evidence
        if both.any():
            image, pixel = np.argwhere(both)[0]
            raise InputError(f"pixel {pixel} of image {image} is in query and in evidence; the masks must be disjoint")
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        joint = self.log_prob(x, num_samples, query | evidence, seed, refinements)
        return joint - self.log_prob(x, num_samples, evidence, seed, refinements)

    # --- missing pixels -----------------------------------------------------------------------------------------

    def inpaint(self, x, observed, num_draws=None, mean=True, num_samples=100, seed=None):
        """Fills in unobserved pixels from p(x_unobserved | x_observed).

        Given the observed pixels the trees have the SPN's posterior probabilities, and the code of each VAE the
        distribution of its k proposals z_i ~ q(z | x_observed) under normalised importance weights. A draw takes a
        tree, then a code for each of its VAEs (sampling importance resampling); the posterior mean sums over both.

        Args:
          x: [batch, pixels] in [0, 1]; what stands at unobserved pixels does not matter and may be NaN.
          observed: bool [batch, pixels].
          num_draws: None gives the posterior mean E[x_unobserved | x_observed]; an integer gives so many draws.
          mean: of draws, whether their pixels are E[x | z] or drawn from p(x | z), as in `sample`.
          num_samples: k, from which all draws of an image are resampled.
          seed: integer; None draws a fresh one.

        Returns:
          Tensor [batch, pixels], or [batch, num_draws, pixels]; observed pixels are those of x.

        Raises:
          InputError: on a wrong shape or dtype, an observed pixel outside [0, 1] or NaN, or a count below 1.
        """
        num_samples = check_integer("num_samples", num_samples)
        x = check_image_array(x, self.graph.num_variables)
        images, observed = check_images(x, self.graph.num_variables, check_mask("observed", observed, x.shape),
                                        self.variable_dtype)

        if num_draws is None:
            rows = num_samples

            def query(*batch):
                return self._posterior_mean(*batch[:-1], num_samples, batch[-1])
        else:
            rows = max(num_samples, num_draws := check_integer("num_draws", num_draws))

            def query(*batch):
                return self._posterior_draws(*batch[:-1], num_draws, mean, num_samples, batch[-1])
        return in_batches(query, (images, observed), make_seed(seed), max(1, ROWS // rows))

    def _posterior_mean(self, x, observed, num_samples, seed):
        return self._filled_mean(x, observed, random_bits(self.noise_shape(num_samples, x.shape[0]), seed))

    def _posterior_draws(self, x, observed, num_draws, mean, num_samples, seed):
        batch = x.shape[0]
        seeds = split(seed, 4)
        outputs = self._filled_draws(
            x, observed, random_bits(self.noise_shape(num_samples, batch), seeds[0]),
            self._tree_bits(batch * num_draws, seeds[1]),
            random_bits([self.num_experts, batch, num_draws], seeds[2]))
        filled = tf.reshape(self._pixels(outputs, mean, seeds[3]), [batch, num_draws, -1])
        return tf.where(observed[:, None], x[:, None], filled)

    def _proposals(self, x, observed, bits):
        """The experts' proposals: their decoder outputs [experts, k, batch, pixels of a leaf], their normalised
        importance weights [experts, k, batch], and the leaf bounds they give [batch, leaf regions, components]."""
        mean, precision = self._propose(x, observed)
        log_weights, outputs = self.importance_weights(x, (mean, precision), standard_normal(bits, x.dtype), observed)
        return outputs, tf.nn.softmax(log_weights, axis=1), self.by_region(iwae.iwae_bound(log_weights))

    def _propose(self, x, observed):
        """q(z | x_observed): `encode`, but p(z) = N(0, I) for a leaf without an observed pixel."""
        mean, precision = self.encode(x, observed)
        if observed is None:
            return mean, precision
        seen = tf.reduce_any(self.present(observed), axis=-1, keepdims=True)
        return tf.where(seen, mean, 0), tf.where(seen, precision, 1)

    @compiled()
    def _filled_mean(self, x, observed, bits):
        outputs, weights, leaves = self._proposals(x, observed, bits)
        parts = tf.reduce_sum(self.likelihood.mean(outputs) * weights[..., None], axis=1)
        reached, _ = self.spn.posterior(leaves)
        return tf.where(observed, x, self._assemble(parts, self.spn.leaf_nodes(reached)))

    @compiled()
    def _filled_draws(self, x, observed, bits, tree_bits, code_bits):
        """Decoder outputs [batch × draws, pixels] of trees and codes from the posterior."""
        outputs, weights, leaves = self._proposals(x, observed, bits)
        experts, batch, draws = code_bits.shape
        _, mixtures = self.spn.upward(leaves)
        trees = self.spn.sample_trees([tf.repeat(mixture, draws, axis=-1) for mixture in mixtures],
                                      [uniform(w, x.dtype) for w in tree_bits], batch * draws)
        # inverse of the distribution function, as for the trees: the first code whose cumulative weight exceeds u
        cumulative = tf.cumsum(tf.transpose(weights, [0, 2, 1]), axis=-1)  # [experts, batch, k]
        threshold = uniform(code_bits, x.dtype) * cumulative[..., -1:]
        chosen = tf.reduce_sum(tf.cast(cumulative[:, :, None] <= threshold[..., None], tf.int32), axis=-1)

        def choose(output):
            output = tf.gather(tf.transpose(output, [0, 2, 1, 3]), chosen, batch_dims=2)
            return self._assemble(tf.reshape(output, [experts, batch * draws, -1]), self.spn.leaf_nodes(trees))

        return tuple(choose(output) for output in outputs)

    # --- latent states ------------------------------------------------------------------------------------------

    def posterior(self, x, num_samples=100, observed=None, seed=None):
        """The posterior of the SPN's latent variables: of every sum's child, every leaf VAE, every partition.

        Args:
          x: [batch, pixels] in [0, 1]; what stands at unobserved pixels does not matter and may be NaN.
          num_samples: k of the leaves' bounds.
          observed: bool [batch, pixels], True where a pixel is observed. None: all are.
          seed: integer; None draws a fresh one.

        Returns:
          Posterior.

        Raises:
          InputError: on a wrong shape or dtype, a pixel outside [0, 1] or NaN, or a k below 1.
        """
        return self._query(lambda x, observed, leaves, _: self._states(leaves), x, num_samples, observed, seed)

    def most_probable_tree(self, x, num_samples=100, observed=None, seed=None):
        """The most probable induced tree of each image, by max-product, and its reconstruction.

        Args:
          x, num_samples, observed, seed: as in `posterior`.

        Returns:
          Tree.

        Raises:
          InputError: as `posterior`.
        """
        return self._query(lambda x, observed, leaves, _: self._tree(x, observed, leaves),
                           x, num_samples, observed, seed)

    def _query(self, answer, x, num_samples, observed, seed):
        """Batches of images through `answer(x, observed, leaf bounds, log_prob)`."""
        num_samples = check_integer("num_samples", num_samples)
        images = check_images(x, self.graph.num_variables, observed, self.variable_dtype)

        def query(x, observed, seed):
            log_prob, _, leaves = self._streamed(x, observed, tf.constant(num_samples), seed)
            return answer(x, observed, leaves, log_prob)

        return in_batches(query, images, make_seed(seed), BATCH)

    @compiled()
    def _states(self, leaves):
        reached, choices = self.spn.posterior(leaves)
        _, edges = self.spn.downward(choices, tf.ones([leaves.shape[0]], leaves.dtype))
        levels = self.spn.levels
        sums = [tf.reshape(reached[level.first_node:][:len(level.regions) * level.num_sums],
                           [len(level.regions), level.num_sums, leaves.shape[0]]) for level in levels]
        partitions = tf.zeros([len(self.graph.partitions), leaves.shape[0]], leaves.dtype)
        for level, edge in zip(levels, edges) if self.graph.partitions else ():
            products = tf.reduce_sum(edge, axis=2)  # P(product in the tree), [R, M, batch]
            partitions += tf.math.unsorted_segment_sum(
                tf.reshape(products, [-1, leaves.shape[0]]), self._partition_of(level), len(self.graph.partitions))
        return Posterior(leaves=self.spn.leaf_nodes(reached), partitions=tf.transpose(partitions),
                         children=tuple(tf.transpose(choice, [3, 0, 2, 1]) for choice in choices),
                         sums=tuple(tf.transpose(s, [2, 0, 1]) for s in sums))

    def _partition_of(self, level):
        """The number of the partition that each product [regions × products] of a level belongs to; −1: of none."""
        numbers = np.full(level.children.shape[:2], -1)
        for row, region in enumerate(level.regions):
            first = 0
            for partition in self.graph.partitions_of(region):
                count = math.prod(self.spn.num_sums if self.graph.partitions_of(child) else self.num_components
                                  for child in partition.children)
                numbers[row, first:first + count] = self.graph.partitions.index(partition)
                first += count
        return numbers.reshape(-1)

    @compiled()
    def _tree(self, x, observed, leaves):
        selected, value = self.spn.most_probable_tree(leaves)
        chosen = self.spn.leaf_nodes(selected)
        codes = tf.transpose(self._propose(x, observed)[0], [1, 0, 2])
        return Tree(log_prob=value + self.log_base(x, observed), leaves=chosen, nodes=tf.transpose(selected),
                    reconstruction=self._picture(codes, chosen))

    # --- codes --------------------------------------------------------------------------------------------------

    def embed(self, x, num_samples=100, seed=0):
        """The latent embedding of section 4.2: the leaf VAEs' codes and the SPN's latent states.

        With E experts (leaf regions × components, a region's side by side), each of latent dimension n_z, the features
        are, in this order:

        * E · n_z: for each expert its posterior mean E_q[z | x_l];
        * E: for each expert P(the induced tree ends in it | x);
        * one for each sum weight, in the order of `spn.sum_weights`: P(sum n is in the tree, y_n = product | x).

        A VAE has no SPN, and its embedding is the first part alone: the mean of q(z | x).

        Args:
          x: [batch, pixels] in [0, 1].
          num_samples: k of the leaves' bounds, from which the probabilities are computed.
          seed: integer; None draws a fresh one.

        Returns:
          Tensor [batch, features].

        Raises:
          InputError: on a wrong shape or dtype, a pixel outside [0, 1] or NaN, or a k below 1.
        """
        return self._query(lambda x, observed, leaves, _: self._features(x, leaves), x, num_samples, None, seed)

    @compiled()
    def _features(self, x, leaves):
        codes, chosen = self._codes(x, leaves)
        batch = x.shape[0]
        if not self.spn.num_weights:
            return tf.reshape(codes, [batch, -1])
        _, choices = self.spn.posterior(leaves)
        _, edges = self.spn.downward(choices, tf.ones([batch], leaves.dtype))
        return tf.concat([tf.reshape(codes, [batch, -1]), tf.reshape(chosen, [batch, -1]),
                          tf.transpose(self.spn.by_weight(edges))], axis=1)

    @compiled()
    def _codes(self, x, leaves):
        """(E_q[z | x_l] [batch, experts, latent_dim], P(leaf | x) [batch, leaf regions, components])."""
        reached, _ = self.spn.posterior(leaves)
        return tf.transpose(self.encode(x)[0], [1, 0, 2]), self.spn.leaf_nodes(reached)

    @compiled()
    def _picture(self, codes, weights):
        """E[x | z] for codes [rows, experts, latent_dim], leaves weighted by [rows, leaf regions, components]."""
        outputs = self.decode(tf.transpose(codes, [1, 0, 2])[:, None])
        return self._assemble(self.likelihood.mean(outputs)[:, 0], weights)

    def reconstruct(self, x, num_samples=100, seed=None):
        """Images through their latent states: E[x | z] at the means of q(z | x), averaged over the posterior of trees.

        Args:
          x: [batch, pixels] in [0, 1].
          num_samples: k of the leaves' bounds, from which the probabilities of trees are computed.
          seed: integer; None draws a fresh one.

        Returns:
          Tensor [batch, pixels], in [0, 1].

        Raises:
          InputError: as `embed`.
        """
        return self._query(lambda x, observed, leaves, _: self._picture(*self._codes(x, leaves)),
                           x, num_samples, None, seed)

    def interpolate(self, x0, x1, steps=8, num_samples=100, seed=None):
        """A path of images from the reconstruction of x0 to that of x1, straight in the latent states.

        At t = 0 … 1 every leaf VAE has the code (1 − t) z₀ + t z₁ between its posterior means, and the trees the
        probabilities (1 − t) P(· | x₀) + t P(· | x₁).

        Args:
          x0, x1: [batch, pixels] in [0, 1], the ends of the paths.
          steps: images on a path, at least 2.
          num_samples: k of the leaves' bounds, from which the probabilities of trees are computed.
          seed: integer; None draws a fresh one.

        Returns:
          Tensor [batch, steps, pixels], in [0, 1].

        Raises:
          InputError: on batches of different size, fewer than 2 steps, or as `embed`.
        """
        steps = check_integer("steps", steps)
        x0, x1 = (check_image_array(x, self.graph.num_variables) for x in (x0, x1))
        if steps < 2 or x0.shape != x1.shape:
            raise InputError(f"interpolate got {steps} steps between images of shapes {x0.shape} and "
                             f"{x1.shape}; it needs at least 2 steps and equal shapes")
        ends = [self._query(lambda x, observed, leaves, _: self._codes(x, leaves), x, num_samples, None, seed)
                for x in (x0, x1)]
        t = np.linspace(0, 1, steps)

        def path(start, end):  # [batch, …] -> [batch × steps, …]
            blend = np.multiply.outer(1 - t, start) + np.multiply.outer(t, end)
            return np.moveaxis(blend, 0, 1).reshape(-1, *start.shape[1:]).astype(self.variable_dtype)

        pictures = in_batches(lambda codes, weights, _: self._picture(codes, weights),
                              [path(*pair) for pair in zip(*ends)], make_seed(seed), ROWS)
        return tf.reshape(pictures, [len(x0), steps, self.graph.num_variables])

    # --- scores -------------------------------------------------------------------------------------------------

    def outlier_score(self, x, num_samples=1000, seed=None):
        """How unexpected images are, and where: −log p(x), and the marginal −log p(x_l) of every leaf region.

        The marginal of a leaf region is the mixture of its VAEs under the trees' prior, p(x_l) = Σ_c P(c) p_c(x_l).
        Where leaf regions overlap, as in random binary trees, it is given that the tree uses the region, and a pixel's
        heat is the mean over the regions that hold it.

        Args:
          x: [batch, pixels] in [0, 1].
          num_samples: k.
          seed: integer; None draws a fresh one.

        Returns:
          Outliers.

        Raises:
          InputError: on a wrong shape or dtype, a pixel outside [0, 1] or NaN, or a k below 1.
        """
        return self._query(lambda x, observed, leaves, log_prob: Outliers(-log_prob, self._heat(x, leaves)),
                           x, num_samples, None, seed)

    @compiled()
    def _heat(self, x, leaves):
        weights = [tf.exp(log_weights) for log_weights in self._tree_prior(1)]
        reached = self.spn.leaf_nodes(self.spn.downward(weights, tf.ones([1], leaves.dtype))[0])  # [1, R, K]
        base = tf.gather(self.likelihood.log_base(x), self.leaf_pixels, axis=1)
        base = tf.reduce_sum(tf.where(self.leaf_exists, base, 0), axis=2)
        share = reached / tf.reduce_sum(reached, axis=2, keepdims=True)
        log_prob = tf.reduce_logsumexp(tf.math.log(share) + leaves, axis=2) + base  # [batch, R]
        per_pixel = -log_prob / self.leaf_exists.sum(axis=1).astype(self.variable_dtype)
        parts = tf.repeat(tf.transpose(per_pixel), self.num_components, axis=0)[..., None]
        parts = tf.repeat(parts, self.leaf_pixels.shape[1], axis=2)
        return self._assemble(parts, tf.repeat(reached, x.shape[0], axis=0))

    def _tree_prior(self, batch):
        """log w_nc of every level as `spn.sample_trees` and `spn.downward` take them, [R, M, S, batch]."""
        return [tf.repeat(tf.cast(log_weights, self.variable_dtype)[..., None], batch, axis=-1)
                for log_weights in self.spn.log_weights()]

    def diagnose(self, x, num_samples=1000, observed=None, tolerance=None, seed=None):
        """A log-likelihood, and how far it is to be trusted.

        The bound's variance over samples, by the delta method: ∂ log p / ∂ L̂_l is P(leaf l | x), the leaves' samples
        are independent, and Var L̂_l = 1/ESS_l − 1/k for its effective sample size; so
        standard_error² = Σ_l P(l | x)² (1/ESS_l − 1/k). It does not see what the samples miss, and no leaf adds more
        than 1 nat to it: where the effective sample size is near 1, trust the ladder more. The ladder doubles the work.

        All other queries rest on the same bounds of the leaves, so what this says for their k, mask and seed holds for
        them; for `conditional_log_prob` ask with the evidence and with query and evidence together.

        Args:
          x, observed, seed: as in `log_prob`.
          num_samples: k, at least 2: one sample has no spread.
          tolerance: nats by which a bound that has levelled off may differ from the last; None takes twice the
            standard error of each image.

        Returns:
          Diagnostics.

        Raises:
          InputError: as `log_prob`, or on a k below 2 or a tolerance that is not positive.
        """
        num_samples = check_integer("num_samples", num_samples)
        if num_samples < 2:
            raise InputError("num_samples is 1; the spread of samples is seen from 2 on")
        if tolerance is not None and not (isinstance(tolerance, numbers.Real) and tolerance > 0):
            raise InputError(f"tolerance is {tolerance!r}; it must be a positive number of nats")
        images = check_images(x, self.graph.num_variables, observed, self.variable_dtype)
        ladder = [2**n for n in range(num_samples.bit_length()) if 2**n < num_samples] + [num_samples]

        def query(x, observed, seed):
            rungs = [self._streamed(x, observed, tf.constant(k), seed) for k in ladder]  # each begins like the last
            log_prob, sizes, leaves = rungs[-1]
            error = self._standard_error(leaves, sizes, tf.constant(num_samples))
            bounds = tf.stack([rung[0] for rung in rungs], axis=1)
            allowed = 2 * error[:, None] if tolerance is None else tolerance
            near = tf.abs(bounds - log_prob[:, None]) <= allowed
            steady = tf.math.cumprod(tf.cast(near, tf.int32), axis=1, reverse=True)
            first = len(ladder) - tf.reduce_sum(steady, axis=1)
            return Diagnostics(log_prob, error, sizes, tf.repeat([ladder], x.shape[0], axis=0), bounds,
                               tf.gather(ladder, first))

        return in_batches(query, images, make_seed(seed), BATCH)

    @compiled()
    def _standard_error(self, leaves, sizes, num_samples):
        reached, _ = self.spn.posterior(leaves)
        k = tf.cast(num_samples, sizes.dtype)
        variance = tf.maximum((k - sizes) / (k * sizes), 0)  # 1/ESS − 1/k, exactly 0 for equal weights
        return tf.sqrt(tf.reduce_sum(tf.square(self.spn.leaf_nodes(reached)) * variance, axis=[1, 2]))
