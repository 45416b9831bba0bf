"""p(x | z): the Gaussian and the Binomial(255) of section 4, as the released code parametrises them, and others.

A log-density is split in two: log p(x | z) = Σ_d log_base(x_d) + log_density(x_d, outputs_d). The base measure depends
on the pixel alone. An induced tree covers every pixel exactly once, so the base measures of all leaves add up to one
number per image, which passes through the SPN untouched.

A new p(x | z) is a class with the names of these, registered in LIKELIHOODS; models, training, queries and scripts then
take it. Also add it to reference.py, PIXEL_LOG_PROBS, and to tests/model/test_likelihoods.py. All is pixel by pixel, of
x [..., pixels] in [0, 1]; log-densities are in nats, and `mean` lies in [0, 1]. `log_base` is 0 where no part is free
of parameters. `of_counts` says that p is one of the counts 255·x in 0 … 255: a probability, not a density.

`outputs` of the decoder broadcast against x. They are a tuple of `num_outputs` tensors [..., width · pixels], each of a
perceptron of its own; a pixel has `width` numbers in each, `pixels` apart.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from spvae_tf.errors import check_choice, check_integer
from spvae_tf.ops.functions import log1p, log_gamma, softplus

NUM_TRIALS = 255  # N of the Binomial: pixels are counts in 0 … 255
LEVELS = NUM_TRIALS + 1  # that a count may have
PEAKS = 0, 252, 253, 254, 255  # of a new tied mixture; others lie evenly between the first two
SQUEEZE = 2e-7  # keeps log p and log(1 − p) of each trial above log(2e-7) = −15.4 (released code)


def _tfp():
    """TensorFlow Probability, imported when first needed."""
    import tensorflow_probability
    return tensorflow_probability


def _tfd():
    return _tfp().distributions


def bits_per_dimension(log_prob, num_pixels):
    """−log₂ p(x) / D of log p(x), nats per image of D pixels, where x are counts; the uniform distribution has 8."""
    return -log_prob / (num_pixels * math.log(2))


def uniform_log_prob(num_pixels):
    """log p(x) of the uniform distribution over all images of counts, nats per image."""
    return -num_pixels * math.log(LEVELS)


def counts(x):
    """The counts 0 … 255 that pixels in [0, 1] are, in their dtype."""
    return tf.round(NUM_TRIALS * x)


def by_pixel(output, width):
    """An output [..., width · pixels] as [..., width, pixels]."""
    return tf.reshape(output, tf.concat([tf.shape(output)[:-1], [width, output.shape[-1] // width]], 0))


def exponentials(logits):
    """(e^{l_j − max} [..., J, pixels], their sum over j [..., pixels], the max [..., 1, pixels]) of logits."""
    top = tf.stop_gradient(tf.reduce_max(logits, axis=-2, keepdims=True))
    terms = tf.exp(logits - top)
    return terms, tf.reduce_sum(terms, axis=-2), top


def log_softmax(logits):
    """log π_j with π = softmax of logits [..., J, pixels]."""
    _, total, top = exponentials(logits)
    return logits - top - tf.math.log(total)[..., None, :]  # in this order, or large logits would lose digits


def weighted(logits, values):
    """Σ_j π_j v_j with π = softmax of the logits, both [..., J, pixels]."""
    terms, total, _ = exponentials(logits)
    return tf.reduce_sum(terms * values, axis=-2) / total


def log_coefficient(x):
    """log of the binomial coefficient (255 over 255·x)."""
    counts = NUM_TRIALS * tf.cast(x, tf.float64)  # log n! is up to 1,162 nats: float32 would leave 0.05 per image
    coefficient = (math.lgamma(NUM_TRIALS + 1) - tf.math.lgamma(1 + counts) - tf.math.lgamma(1 + NUM_TRIALS - counts))
    return tf.cast(coefficient, x.dtype)


class Gaussian:
    """N(x_d; mean, 1/precision) with mean = sigmoid(o_1) and precision = 1 + o_2², so no deviation exceeds 1."""

    name = "continuous"
    num_outputs, width = 2, 1
    of_counts = False

    def log_base(self, x):
        """−½ log 2π."""
        return tf.fill(tf.shape(x), tf.constant(-0.5 * math.log(2 * math.pi), x.dtype))

    def log_density(self, x, outputs):
        """½ log precision − ½ precision (x − mean)², without the base measure."""
        precision = 1 + tf.square(outputs[1])
        return 0.5 * (tf.math.log(precision) - precision * tf.math.squared_difference(x, tf.sigmoid(outputs[0])))

    def distribution(self, outputs):
        """p(x_d | z) as a distribution of TensorFlow Probability, in the units of x."""
        return _tfd().Normal(tf.sigmoid(outputs[0]), tf.math.rsqrt(1 + tf.square(outputs[1])))

    def mean(self, outputs):
        """E[x | z], in [0, 1]."""
        return tf.sigmoid(outputs[0])

    def draw(self, outputs, seed):
        """One draw of x given z; unbounded, as a Gaussian is."""
        return self.distribution(outputs).sample(seed=seed)


class OfCounts:
    """What likelihoods of counts share, unless they say otherwise."""

    of_counts = True

    def log_base(self, x):
        """0."""
        return tf.zeros_like(x)

    def draw(self, outputs, seed):
        """One draw of x given z, a multiple of 1/255 in [0, 1]."""
        return self.distribution(outputs).sample(seed=seed) / NUM_TRIALS


class Binomial(OfCounts):
    """Binomial(255, p) over the counts 255·x_d, with p = sigmoid(o).

    As in the released code p is squeezed 1e-7 away from 0 and 1, and 1e-7 is added inside both logarithms, so that the
    probabilities of all counts sum to (1 + 2e-7)^255 = 1.00005.
    """

    name = "discrete"
    num_outputs, width = 1, 1

    def log_base(self, x):
        """log of the binomial coefficient (255 over 255·x)."""
        return log_coefficient(x)

    def log_density(self, x, outputs):
        """c log p + (255 − c) log(1 − p) with c = 255·x, without the base measure."""
        # with d = e^−|o| the larger of p and 1 − p is 1/(1 + d), the smaller d/(1 + d); squeezed by s and 1e-7 added,
        # their logarithms are log(1 + s·d) − log(1 + d) and log(d + s) − log(1 + d)
        above_half = outputs[0] > 0
        decay = tf.exp(tf.where(above_half, -outputs[0], outputs[0]))  # −|o| has no gradient at 0
        toward_larger = tf.where(above_half, x, 1 - x)
        return NUM_TRIALS * (toward_larger * SQUEEZE * decay  # log(1 + s·d) = s·d to 2e-14
                             + (1 - toward_larger) * tf.math.log(decay + SQUEEZE) - log1p(decay))

    def distribution(self, outputs):
        """p(c_d | z) as a distribution of TensorFlow Probability, over the counts c = 255·x."""
        probs = tf.sigmoid(outputs[0]) * (1 - SQUEEZE) + SQUEEZE / 2
        return _tfd().Binomial(tf.constant(NUM_TRIALS, probs.dtype), probs=probs)

    def mean(self, outputs):
        """E[x | z], in [0, 1]."""
        return tf.sigmoid(outputs[0])


class BetaBinomial(OfCounts):
    """The Binomial(255, p) with p ~ Beta(α, β) integrated out, α and β being softplus(o) within ALPHA_RANGE."""

    name = "beta_binomial"
    num_outputs, width = 2, 1
    ALPHA_RANGE = 1e-4, 1e4

    def _parameters(self, outputs):
        low, high = self.ALPHA_RANGE
        return [tf.minimum(low + softplus(output), high) for output in outputs]

    def log_base(self, x):
        """log of the binomial coefficient (255 over 255·x)."""
        return log_coefficient(counts(x) / NUM_TRIALS)

    def log_density(self, x, outputs):
        """log B(c + α, 255 − c + β) − log B(α, β) with c = 255·x and Euler's beta function B."""
        def log_beta(a, b):
            return log_gamma(a) + log_gamma(b) - log_gamma(a + b)

        # terms of thousands of nats cancel
        c, alpha, beta = (tf.cast(part, tf.float64) for part in (counts(x), *self._parameters(outputs)))
        return tf.cast(log_beta(c + alpha, NUM_TRIALS - c + beta) - log_beta(alpha, beta), x.dtype)

    def distribution(self, outputs):
        """p(c_d | z) as a distribution of TensorFlow Probability, over the counts c = 255·x."""
        alpha, beta = self._parameters(outputs)
        return _tfd().BetaBinomial(tf.constant(NUM_TRIALS, alpha.dtype), alpha, beta)

    def mean(self, outputs):
        """E[x | z] = α / (α + β), in [0, 1]."""
        alpha, beta = self._parameters(outputs)
        return alpha / (alpha + beta)


class Logistic(OfCounts):
    """A logistic distribution rounded to counts, what lies beyond 0 and 255 falling on these.

    The location 255·(½ + o_1) and the scale, LEAST_SCALE + SCALE·softplus(o_2), are in grey levels, by pixel.
    """

    name = "logistic"
    num_outputs, width = 2, 1
    LEAST_SCALE, SCALE = 0.05, 32

    def _location_and_scale(self, location, scale):
        return NUM_TRIALS * (0.5 + location), self.LEAST_SCALE + self.SCALE * softplus(scale)

    def log_density(self, x, outputs):
        """log(σ(b) − σ(a)) with a, b = (c ∓ ½ − location) / scale; a = −∞ for c = 0 and b = ∞ for c = 255."""
        c, (location, scale) = counts(x), self._location_and_scale(*outputs)
        below = tf.where(c > 0, softplus((c - 0.5 - location) / scale), 0)  # −log σ(−a)
        above = tf.where(c < NUM_TRIALS, softplus((location - c - 0.5) / scale), 0)  # −log σ(b)
        # σ(b) − σ(a) = σ(b) σ(−a) (1 − e^{a − b})
        inside = tf.where((c > 0) & (c < NUM_TRIALS), tf.math.log(-tf.math.expm1(-1 / scale)), 0)
        return inside - below - above

    def distribution(self, outputs):
        """p(c_d | z) as a distribution of TensorFlow Probability, over the counts c = 255·x."""
        location, scale = self._location_and_scale(*outputs)
        return _tfd().QuantizedDistribution(_tfd().Logistic(location - 0.5, scale), low=0.0, high=float(NUM_TRIALS))

    def mean(self, outputs):
        """E[x | z], in [0, 1], but for the rounding, which moves it by half a grey level at most."""
        location, scale = self._location_and_scale(*outputs)
        clipped = scale * (softplus(location / scale) - softplus((location - NUM_TRIALS) / scale))
        return tf.clip_by_value(clipped / NUM_TRIALS, 0, 1)


class LogisticMixture(OfCounts):
    """A mixture of `width` distributions as of `Logistic` for each pixel: their log-weights, locations and scales."""

    name = "logistic_mixture"
    num_outputs, width = 3, 3
    component = Logistic()

    def log_density(self, x, outputs):
        """log Σ_j π_dj p_j(c) with the weights π_d = softmax of the first output."""
        logits, *parameters = (by_pixel(output, self.width) for output in outputs)
        log_probs = self.component.log_density(x[..., None, :], parameters)
        _, total, top = exponentials(log_softmax(logits) + log_probs)
        return top[..., 0, :] + tf.math.log(total)

    def distribution(self, outputs):
        """p(c_d | z) as a distribution of TensorFlow Probability, over the counts c = 255·x."""
        logits, *parameters = (tf.linalg.matrix_transpose(by_pixel(output, self.width)) for output in outputs)
        return _tfd().MixtureSameFamily(_tfd().Categorical(logits), self.component.distribution(parameters))

    def mean(self, outputs):
        """E[x | z], in [0, 1], as of `Logistic`."""
        logits, *parameters = (by_pixel(output, self.width) for output in outputs)
        return weighted(logits, self.component.mean(parameters))


class Categorical(OfCounts):
    """Any distribution over the 256 counts, their log-probabilities but for a constant being the decoder's output."""

    name = "categorical"
    num_outputs, width = 1, LEVELS

    def log_density(self, x, outputs):
        """o_dc − log Σ_c' exp o_dc' with c = 255·x."""
        is_count = counts(x)[..., None, :] == tf.range(LEVELS, dtype=x.dtype)[:, None]
        return tf.reduce_sum(tf.where(is_count, log_softmax(by_pixel(outputs[0], LEVELS)), 0), axis=-2)

    def distribution(self, outputs):
        """p(c_d | z) as a distribution of TensorFlow Probability, over the counts c = 255·x."""
        return _tfd().Categorical(tf.linalg.matrix_transpose(by_pixel(outputs[0], LEVELS)), dtype=outputs[0].dtype)

    def mean(self, outputs):
        """E[x | z], in [0, 1]."""
        logits = by_pixel(outputs[0], LEVELS)
        return weighted(logits, tf.range(LEVELS, dtype=logits.dtype)[:, None] / NUM_TRIALS)


class TiedMixture(OfCounts, keras.layers.Layer):
    """A mixture of J distributions T_j over the 256 counts that are the same everywhere: p(c) = Σ_j π_dj T_j(c).

    The decoder gives the weights' logits, π_d = softmax(o_d); the table of log T, [J, 256] but for a constant, is
    learned (`first_table`). A share of LEAST of each T_j is uniform, so that no count is impossible.
    """

    name = "tied_mixture"
    num_outputs = 1
    LEAST = 1e-6

    def __init__(self, num_categories):
        super().__init__(name=self.name)
        self.width = check_integer("num_categories", num_categories)
        self.table = self.add_weight(shape=(self.width, LEVELS), name="table",
                                     initializer=lambda shape, dtype: tf.constant(first_table(self.width), dtype))
        self.built = True

    def categories(self, dtype):
        """The T_j, [J, 256]."""
        return tf.cast(self.LEAST / LEVELS + (1 - self.LEAST) * tf.nn.softmax(self.table), dtype)

    def log_density(self, x, outputs):
        """log Σ_j π_dj T_j(c) with c = 255·x: J exponentials for each z; the T_j(c) are looked up for each x alone."""
        found = tf.gather(tf.transpose(self.categories(x.dtype)), tf.cast(counts(x), tf.int32))  # [..., pixels, J]
        terms, total, _ = exponentials(by_pixel(outputs[0], self.width))
        return tf.math.log(tf.reduce_sum(terms * tf.linalg.matrix_transpose(found), axis=-2)) - tf.math.log(total)

    def distribution(self, outputs):
        """p(c_d | z) as a distribution of TensorFlow Probability, over the counts c = 255·x."""
        logits = by_pixel(outputs[0], self.width)
        probs = tf.einsum("...jd,jc->...dc", tf.nn.softmax(logits, axis=-2), self.categories(logits.dtype))
        return _tfd().Categorical(probs=probs, dtype=logits.dtype)

    def mean(self, outputs):
        """E[x | z] = Σ_j π_dj E[c | T_j] / 255, in [0, 1]."""
        logits = by_pixel(outputs[0], self.width)
        levels = tf.range(LEVELS, dtype=logits.dtype) / NUM_TRIALS
        return weighted(logits, tf.linalg.matvec(self.categories(logits.dtype), levels)[:, None])

    def draw(self, outputs, seed):
        """One draw of x given z, a multiple of 1/255 in [0, 1]."""
        logits = tf.linalg.matrix_transpose(by_pixel(outputs[0], self.width))
        first, second = _tfp().random.split_seed(seed, 2)
        chosen = _tfd().Categorical(logits).sample(seed=first)
        flat = tf.reshape(chosen, [-1])
        # of every T_j one draw for each pixel: that takes no table of 256 numbers for each
        draws = _tfd().Categorical(probs=self.categories(tf.float32)).sample(tf.size(flat), seed=second)
        drawn = tf.gather(draws, flat, batch_dims=1)
        return tf.cast(tf.reshape(drawn, tf.shape(chosen)), logits.dtype) / NUM_TRIALS


def first_table(num_categories):
    """The table of a new `TiedMixture`: log T_j(c), nine tenths of T_j being a peak, the rest uniform; [J, 256]."""
    many = max(num_categories - len(PEAKS), 0)
    between = np.arange(1, many + 1) * PEAKS[1] / (many + 1)
    centres = np.array([*PEAKS[:num_categories], *between])[:, None]
    spread = np.where(np.isin(centres, PEAKS), 0.5, PEAKS[1] / (2 * many + 2))
    peaks = np.exp(-np.abs(np.arange(LEVELS) - centres) / spread)
    return np.log(0.9 * peaks / peaks.sum(axis=1, keepdims=True) + 0.1 / LEVELS)


LIKELIHOODS = {  # the first two by their names in the paper's tables
    "continuous": Gaussian, "discrete": Binomial, "tied_mixture": TiedMixture, "logistic": Logistic,
    "logistic_mixture": LogisticMixture, "beta_binomial": BetaBinomial, "categorical": Categorical}


def get_likelihood(name):
    """The class of likelihood of a name; raises InputError when there is none."""
    check_choice("likelihood", name, LIKELIHOODS)
    return LIKELIHOODS[name]


def make_likelihood(name, num_categories):
    """A likelihood of a name, J = `num_categories` being for the tied mixture alone; raises InputError."""
    kind = get_likelihood(name)
    return kind(num_categories) if kind is TiedMixture else kind()
