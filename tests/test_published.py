"""The paper's numbers."""

import itertools

import pytest

from spvae_tf import published
from spvae_tf.spvae import MODELS


@pytest.mark.parametrize("model, dataset, likelihood, test_ll, kparams, hidden, latent", [
    ("SPVAE", "mnist", "continuous", 2819, 413, 30, 25),
    ("SPVAE", "svhn_cropped", "continuous", 1936, 511, 32, 25),
    ("SPVAE", "cifar10", "continuous", 1283, 511, 32, 25),
    ("SPVAE", "mnist", "discrete", -1532, 310, 30, 25),
    ("SPVAE", "svhn_cropped", "discrete", -3891, 461, 32, 50),
    ("SPVAE", "cifar10", "discrete", -5543, 353, 30, 25),
    ("VAE", "mnist", "continuous", 2598, 1545, 300, 200),
    ("VAE", "cifar10", "continuous", 896, 1653, 300, 50),
    ("VAE", "svhn_cropped", "discrete", -4965, 3108, 600, 100),
    ("VAE", "cifar10", "discrete", -7200, 3288, 600, 200),
    ("Conv-SPVAE", "mnist", "continuous", 2702, 1259, 64, 25),
    ("Conv-SPVAE", "svhn_cropped", "discrete", -3666, 1603, 64, 25),
    ("Conv-SPVAE", "cifar10", "discrete", -4562, 1026, 32, 25),
    ("Conv-VAE", "mnist", "continuous", 2907, 894, 64, 200),
    ("Conv-VAE", "svhn_cropped", "discrete", -4115, 1436, 128, 200),
    ("Conv-VAE", "cifar10", "continuous", 1191, 1219, 128, 150)])
def test_tables_of_the_paper(model, dataset, likelihood, test_ll, kparams, hidden, latent):
    cell = published.CELLS[model, dataset, likelihood]
    assert (cell.test_ll, cell.kparams, cell.hidden_units, cell.latent_dim) == (test_ll, kparams, hidden, latent)
    assert published.cell(model, dataset, likelihood) == cell


def test_table_is_complete_and_says_what_the_paper_says():
    """Section 5: hierarchies beat their VAEs in every cell but one, convolutional on continuous MNIST."""
    assert set(published.CELLS) == set(itertools.product(MODELS, published.DATASETS, ("continuous", "discrete")))
    worse = [(prefix, dataset, likelihood) for prefix in ("", "Conv-") for dataset in published.DATASETS
             for likelihood in ("continuous", "discrete")
             if published.CELLS[f"{prefix}SPVAE", dataset, likelihood].test_ll
             <= published.CELLS[f"{prefix}VAE", dataset, likelihood].test_ll]
    assert worse == [("Conv-", "mnist", "continuous")]


def test_checkpoints_of_other_sizes_than_table_2():
    """Two of Table 1's numbers come from models of other sizes than Table 2's."""
    assert {key: cell.checkpoint for key, cell in published.CELLS.items() if cell.checkpoint} == {
        ("SPVAE", "svhn_cropped", "discrete"): (100, 50), ("Conv-VAE", "mnist", "discrete"): (64, 100)}


def test_a_sample_counts_as_its_whole():
    assert published.cell("VAE", "mnist_sample", "continuous").test_ll == 2598
    assert published.cell("VAE", "cifar10_sample", "discrete").test_ll == -7200
    assert published.cell("VAE", "faces.npz", "continuous") is None
