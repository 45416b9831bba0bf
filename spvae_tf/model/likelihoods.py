"""p(x | z): the Gaussian and the Binomial(255) likelihood of section 4, as the released code parametrises them.

A log-density is split in two: log p(x | z) = Σ_d log_base(x_d) + log_density(x_d, outputs_d). The base measure depends
on the pixel alone. An induced tree covers every pixel exactly once, so the base measures of all leaves add up to one
number per image, which passes through the SPN untouched.

A new p(x | z) is a class with the names of these two, registered in LIKELIHOODS; models, training, queries and scripts
then take it. Also add it to reference.py, PIXEL_LOG_PROBS, and to tests/model/test_likelihoods.py. All is pixel by
pixel, of x [..., pixels] in [0, 1] and `outputs`, a tuple of `num_outputs` tensors of the decoder that broadcast
against x; log-densities are in nats, and `mean` lies in [0, 1]. `log_base` is 0 where no part is free of parameters;
`of_counts` says that pixels are counts over NUM_TRIALS.
"""

import math

import tensorflow as tf

from spvae_tf.errors import check_choice
from spvae_tf.ops.functions import log1p

NUM_TRIALS = 255  # N of the Binomial: pixels are counts in 0 … 255
SQUEEZE = 2e-7  # keeps log p and log(1 − p) of each trial above log(2e-7) = −15.4 (released code)


def _tfd():
    """TensorFlow Probability's distributions, imported when first needed."""
    from tensorflow_probability import distributions
    return distributions


class Gaussian:
    """N(x_d; mean, 1/precision) with mean = sigmoid(o_1) and precision = 1 + o_2², so no deviation exceeds 1."""

    name = "continuous"
    num_outputs = 2
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


class Binomial:
    """Binomial(255, p) over the counts 255·x_d, with p = sigmoid(o).

    As in the released code p is squeezed 1e-7 away from 0 and 1, and 1e-7 is added inside both logarithms, so that the
    probabilities of all counts sum to (1 + 2e-7)^255 = 1.00005.
    """

    name = "discrete"
    num_outputs = 1
    of_counts = True

    def log_base(self, x):
        """log of the binomial coefficient (255 over 255·x)."""
        counts = NUM_TRIALS * tf.cast(x, tf.float64)  # log n! is up to 1,162 nats: float32 would leave 0.05 per image
        log_coefficient = (math.lgamma(NUM_TRIALS + 1) - tf.math.lgamma(1 + counts)
                           - tf.math.lgamma(1 + NUM_TRIALS - counts))
        return tf.cast(log_coefficient, x.dtype)

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

    def draw(self, outputs, seed):
        """One draw of x given z, a multiple of 1/255 in [0, 1]."""
        return self.distribution(outputs).sample(seed=seed) / NUM_TRIALS


LIKELIHOODS = {"continuous": Gaussian, "discrete": Binomial}  # by their names in the paper's tables


def get_likelihood(name):
    """The likelihood of a name; raises InputError for any other."""
    check_choice("likelihood", name, LIKELIHOODS)
    return LIKELIHOODS[name]()
