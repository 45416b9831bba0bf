"""What a query does not take."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from spvae_tf import build_model
from spvae_tf.errors import InputError
from spvae_tf.ops.noise import make_seed
from spvae_tf.queries.serving import Served

GOOD, SEEN = np.full([2, 8], 0.4), np.ones([2, 8], bool)


REFUSED = {
    "NaN in an observed pixel": (lambda m: m.inpaint(np.full([2, 8], np.nan), SEEN), "NaN at pixel 0"),
    "pixels above 1": (lambda m: m.posterior(GOOD + 1), "must lie in [0, 1]"),
    "integer images": (lambda m: m.embed(SEEN.astype(int)), "floating point"),
    "mask of another shape": (lambda m: m.inpaint(GOOD, SEEN[:, :7]), "bool of shape (2, 8)"),
    "mask of one image": (lambda m: m.inpaint(GOOD, SEEN[0]), "bool of shape (2, 8)"),
    "mask of floats": (lambda m: m.posterior(GOOD, observed=GOOD), "observed is float64"),
    "ragged mask": (lambda m: m.inpaint(GOOD, [[True], [True, False]]), "observed: cannot be made an array"),
    "query of integers": (lambda m: m.conditional_log_prob(GOOD, SEEN.astype(int), ~SEEN), "query is int64"),
    "evidence of another shape": (lambda m: m.conditional_log_prob(GOOD, ~SEEN, SEEN[:1]), "evidence is bool"),
    "masks that overlap": (lambda m: m.conditional_log_prob(GOOD, SEEN, SEEN), "pixel 0 of image 0"),
    "no samples": (lambda m: m.inpaint(GOOD, SEEN, num_samples=0), "num_samples is 0"),
    "no draws": (lambda m: m.inpaint(GOOD, SEEN, 0), "num_draws is 0"),
    "half an image": (lambda m: m.sample(0.5), "n is 0.5"),
    "negative seed": (lambda m: m.sample(1, seed=-1), "seed is -1"),
    "one step": (lambda m: m.interpolate(GOOD, GOOD, 1), "steps is 1; it must be an integer of at least 2"),
    "unequal ends": (lambda m: m.interpolate(GOOD, GOOD[:1]), "equal shapes"),
    "no tolerance": (lambda m: m.diagnose(GOOD, tolerance=0), "tolerance is 0"),
    "tolerance of text": (lambda m: m.diagnose(GOOD, tolerance="a"), "tolerance is 'a'"),
    "spread of one sample": (lambda m: m.diagnose(GOOD, 1), "num_samples is 1"),
    "ragged images": (lambda m: m.inpaint([[0.5], [0.5, 0.5]], SEEN), "images: cannot be made an array"),
    "images of another width": (lambda m: m.inpaint(GOOD[:, :5], SEEN), "the model takes [batch, 8]"),
    "ends of another width": (lambda m: m.interpolate(GOOD[:, :5], GOOD[:, :5]), "the model takes [batch, 8]"),
    "a dataset": (lambda m: m.log_prob(tf.data.Dataset.from_tensors(GOOD)), "model.predict(dataset)"),
    "one image": (lambda m: m.log_prob(GOOD[0]), "one image is x[None]"),
    "images not flattened": (lambda m: m.log_prob(GOOD.reshape(2, 2, 4)), "x.reshape(-1, 8) has it"),
    "one image, called": (lambda m: m(np.float32(GOOD[0])), "one image is x[None]"),
    "integers, called": (lambda m: m(SEEN.astype(np.uint8)), "floating point"),
    "a tensor of another width, called": (lambda m: m(keras.Input([5])), "the model takes [batch, 8]"),
    "more than float32's rounding": (lambda m: m.log_prob(GOOD * 0 + 1.00001), "from 1.00001 to 1.00001"),
    "half a count": (lambda m: m.log_prob(np.where(np.arange(16).reshape(2, 8) == 11, 0.5 / 255, GOOD)),
                     "image 1 is 0.5/255 at pixel 3; a discrete model takes multiples of 1/255"),
    "a masked array": (lambda m: m.log_prob(np.ma.masked_array(GOOD, ~SEEN)), "observed=~mask"),
    "a dict": (lambda m: m.log_prob({"x": GOOD}), "a dict is no array of numbers"),
    "more than float32 holds": (lambda m: m.log_prob(GOOD * 1e300), "reach from inf to inf"),
    "more samples than int32 counts": (lambda m: m.log_prob(GOOD, 2**31), "num_samples is 2147483648"),
    "half a count, called": (lambda m: m(GOOD + 0.5 / 255), "np.rint(255 * x) / 255 rounds"),
    "ragged images to split": (lambda m: m.conditional_log_prob([[0.5], [0.5, 0.5]], SEEN, ~SEEN), "images: cannot"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_with_one_line(case, binomial):
    query, message = REFUSED[case]
    with pytest.raises(InputError) as caught:
        query(binomial)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_rounding_of_float32_is_no_fault(binomial):
    """1.0000001 is 1, and k/255 a count in any order of rounding; what is hidden need be neither."""
    x = np.float32([[0, 1, 1.0000001, -1e-7, *np.arange(101, 105) * np.float32(1 / 255)]])
    near = np.float32([[0, 1, 1, 0, *np.arange(101, 105) / 255]])
    np.testing.assert_allclose(binomial.log_prob(x, 5, seed=1), binomial.log_prob(near, 5, seed=1), rtol=1e-5)
    hidden = np.where(np.arange(8) == 3, 0.5 / 255, near)
    assert np.isfinite(binomial.log_prob(hidden, 5, np.arange(8)[None] != 3))


def test_half_counts_by_request():
    model = build_model("VAE", (2, 4), "discrete", hidden_units=1, latent_dim=1, whole_counts=False)
    assert np.isfinite(model.log_prob(GOOD + 0.5 / 255, 2)).all()


def test_a_gaussians_draws_are_refused_with_the_reason(grid):
    draws = grid.sample(20, mean=False, seed=1)
    with pytest.raises(InputError, match=r"a Gaussian's draws do not: np.clip\(x, 0, 1\) cuts them off"):
        grid.log_prob(draws)
    assert np.isfinite(grid.log_prob(np.clip(draws, 0, 1), 2)).all()


def test_a_served_model_checks_the_same(binomial):
    served, seen = Served(binomial, 2, 2), np.ones([1, 8], bool)
    for x, message in ((GOOD[:1] + 0.5 / 255, "multiples of 1/255"), (GOOD[:1] + 1, "reach from")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            served.log_prob(np.float32(x), seen, make_seed(1))
    assert np.isfinite(served.log_prob(np.float32(0 * GOOD[:1] + 1.0000001), seen, make_seed(1)))
