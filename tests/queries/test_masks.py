"""What a query does not take."""

import numpy as np
import pytest

from spvae_tf.errors import InputError

GOOD, SEEN = np.full([2, 8], 0.5), np.ones([2, 8], bool)


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
    "ragged images to split": (lambda m: m.conditional_log_prob([[0.5], [0.5, 0.5]], SEEN, ~SEEN), "images: cannot"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_with_one_line(case, binomial):
    query, message = REFUSED[case]
    with pytest.raises(InputError) as caught:
        query(binomial)
    assert message in str(caught.value) and "\n" not in str(caught.value)
