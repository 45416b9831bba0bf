"""Seeds, and more images than a batch, fewer, or none."""

import numpy as np
from small_models import MANY, images, mask


def test_seeds(binomial):
    x, observed = images(binomial), mask(binomial)
    for query in (lambda seed: binomial.sample(4, mean=False, seed=seed),
                  lambda seed: binomial.inpaint(x, observed, seed=seed),
                  lambda seed: binomial.inpaint(x, observed, 2, False, seed=seed),
                  lambda seed: binomial.conditional_log_prob(x, ~observed, observed, 3, seed)):
        first = query(1).numpy()
        np.testing.assert_array_equal(query(1), first)
        assert (query(2).numpy() != first).any() and (query(None).numpy() != query(None).numpy()).any()


def test_more_images_than_a_batch(binomial):
    """Every batch has its own noise, the last is cut to size, and images stay in their places."""
    x, observed = images(binomial, 4), mask(binomial, 4)
    many, seen = np.tile(x, [52, 1])[:205], np.tile(observed, [52, 1])[:205]
    value = binomial.inpaint(many, seen, num_samples=400, seed=19).numpy()
    assert value.shape == (205, 8)
    expected = np.tile(binomial.inpaint(x, observed, num_samples=MANY, seed=19), [52, 1])[:205]
    np.testing.assert_allclose(value, expected, atol=0.05)
    posterior = binomial.posterior(many, 50, seen, seed=20)
    assert posterior.leaves.shape == (205, 2, 2) and posterior.partitions.shape == (205, 1)
    copies = posterior.leaves.numpy()[[1, 97, 101, 201]]  # of one image, in three batches at the same place but once
    assert len(np.unique(copies[:, 0, 0])) == 4 and np.ptp(copies, axis=0).max() < 0.3
    samples = binomial.sample(1003, seed=21).numpy()
    assert samples.shape == (1003, 8) and len(np.unique(samples[:, 0])) > 900


def test_numpy_integers_count(binomial):
    x, observed = images(binomial), mask(binomial)
    k, two = np.int64(3), np.int32(2)
    np.testing.assert_array_equal(binomial.log_prob(x, k, seed=1), binomial.log_prob(x, 3, seed=1))
    np.testing.assert_array_equal(binomial.diagnose(x, k, seed=1).bounds, binomial.diagnose(x, 3, seed=1).bounds)
    np.testing.assert_array_equal(binomial.inpaint(x, observed, two, num_samples=k, seed=1),
                                  binomial.inpaint(x, observed, 2, num_samples=3, seed=1))
    assert binomial.sample(two).shape == (2, 8) and binomial.interpolate(x, x, two).shape == (3, 2, 8)


def test_no_images(binomial):
    x, observed = np.zeros([0, 8]), np.zeros([0, 8], bool)
    assert binomial.inpaint(x, observed).shape == (0, 8)
    assert binomial.inpaint(x, observed, 2, mean=False).shape == (0, 2, 8)
    assert binomial.conditional_log_prob(x, observed, observed).shape == (0,)
    assert binomial.embed(x).shape[0] == 0
    assert binomial.interpolate(x, x, 3).shape == (0, 3, 8)
    assert binomial.most_probable_tree(x).reconstruction.shape == (0, 8)
    assert binomial.outlier_score(x).heat.shape == (0, 8)
    assert binomial.diagnose(x, 5).bounds.shape == (0, 4)
