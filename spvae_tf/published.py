"""The numbers printed in the paper (Tables 1 and 2), the hyper-parameters behind them, and the authors' own logs."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from spvae_tf import files

DATA = Path(__file__).parent / "paper_data"
DIGITIZED_SWEEP, AUTHORS_RUNS = DATA / "figure2_digitized.csv", DATA / "authors_runs.csv"
SPLITS = DATA / "splits.npz"
SPLIT_DATASETS = ("mnist", "cifar10")  # whose division by the authors is known


class Cell(NamedTuple):
    """One cell of Tables 1 and 2."""

    test_ll: int  # Table 1: 5,000-sample IWAE ELBO on the test set, nats per image
    kparams: int  # Table 2: thousands of parameters, cut off
    hidden_units: int  # H and
    latent_dim: int  # n_z that give Table 2's size
    logged_val_ll: int | None  # the authors' log of a run of that size, k = 5, the best on validation; None: not logged
    logged_test_ll: int | None
    checkpoint: tuple | None = None  # (H, n_z) of the checkpoint behind Table 1 where they are not Table 2's
    checkpoint_logged: tuple | None = None  # (validation, test) of the authors' log at those sizes, k = 5


SIDES = {"mnist": 28, "svhn_cropped": 32, "cifar10": 32}  # of the images, in pixels
DATASETS = tuple(SIDES)
CELLS = {
    ("SPVAE", "mnist", "continuous"): Cell(2819, 413, 30, 25, 2754, 2763),
    ("SPVAE", "svhn_cropped", "continuous"): Cell(1936, 511, 32, 25, 1622, 1839),
    ("SPVAE", "cifar10", "continuous"): Cell(1283, 511, 32, 25, 1183, 1186),
    ("SPVAE", "mnist", "discrete"): Cell(-1532, 310, 30, 25, -1855, -1826),
    ("SPVAE", "svhn_cropped", "discrete"): Cell(-3891, 461, 32, 50, -4403, -4090, (100, 50), (-4330, -4045)),
    ("SPVAE", "cifar10", "discrete"): Cell(-5543, 353, 30, 25, -5715, -5698),
    ("VAE", "mnist", "continuous"): Cell(2598, 1545, 300, 200, 2453, 2471),
    ("VAE", "svhn_cropped", "continuous"): Cell(1442, 1713, 300, 100, 1188, 1391),
    ("VAE", "cifar10", "continuous"): Cell(896, 1653, 300, 50, 827, 830),
    ("VAE", "mnist", "discrete"): Cell(-2351, 1158, 300, 200, -2672, -2629),
    ("VAE", "svhn_cropped", "discrete"): Cell(-4965, 3108, 600, 100, -5450, -4886),
    ("VAE", "cifar10", "discrete"): Cell(-7200, 3288, 600, 200, -7252, -7231),
    ("Conv-SPVAE", "mnist", "continuous"): Cell(2702, 1259, 64, 25, 2651, 2652),
    ("Conv-SPVAE", "svhn_cropped", "continuous"): Cell(2101, 1604, 64, 25, 1789, 2011),
    ("Conv-SPVAE", "cifar10", "continuous"): Cell(1397, 1028, 32, 25, 1314, 1320),
    ("Conv-SPVAE", "mnist", "discrete"): Cell(-927, 1257, 64, 25, -1069, -1063),
    ("Conv-SPVAE", "svhn_cropped", "discrete"): Cell(-3666, 1603, 64, 25, -3892, -3711),
    ("Conv-SPVAE", "cifar10", "discrete"): Cell(-4562, 1026, 32, 25, -4693, -4686),
    ("Conv-VAE", "mnist", "continuous"): Cell(2907, 894, 64, 200, 2824, 2831),
    ("Conv-VAE", "svhn_cropped", "continuous"): Cell(1896, 1219, 128, 150, 1608, 1836),
    ("Conv-VAE", "cifar10", "continuous"): Cell(1191, 1219, 128, 150, 1117, 1123),
    ("Conv-VAE", "mnist", "discrete"): Cell(-2099, 894, 64, 200, -2216, -2184, (64, 100), (-2283, -2241)),
    ("Conv-VAE", "svhn_cropped", "discrete"): Cell(-4115, 1436, 128, 200, None, None),
    ("Conv-VAE", "cifar10", "discrete"): Cell(-6752, 1219, 128, 150, -6861, -6841),
}


def whole_name(dataset):
    """The data set that a sample was drawn from: "mnist_sample" -> "mnist"."""
    return dataset.removesuffix("_sample")


def cell(model, dataset, likelihood):
    """The Cell of a run, or None where the paper has none, as of a user's own images; a sample counts as its whole."""
    return CELLS.get((model, whole_name(dataset), likelihood))


def digitized_sweep():
    """Figure 2 as the authors' notebooks plot it: dict key of CELLS -> dict training fraction -> test ELBO, k = 5.

    Read off the plots, to about 1 % of the plotted range, and less so below a fraction of 0.03. The SPVAE's curves stop
    early.
    """
    sweep = {}
    for row in files.read_table(DIGITIZED_SWEEP):
        dataset = "svhn_cropped" if row["dataset"] == "svhn" else row["dataset"]
        curve = sweep.setdefault((row["model"].upper(), dataset, row["likelihood"]), {})
        curve[row["train_fraction"]] = row["test_ll_k5_digitized"]
    return sweep


def authors_runs():
    """The runs in the authors' notebooks: dict key of CELLS -> dict (H, n_z) -> [(validation ELBO, test ELBO), …].

    k = 5; of runs of the same sizes, the best on validation comes first.
    """
    runs = {}
    for row in files.read_table(AUTHORS_RUNS):
        sizes = runs.setdefault((row["model"], row["dataset"], row["likelihood"]), {})
        sizes.setdefault((row["hidden_units"], row["latent_dim"]), []).append((row["val_ll_k5"], row["test_ll_k5"]))
    return {key: {size: sorted(values, reverse=True) for size, values in sizes.items()} for key, sizes in runs.items()}


def authors_splits(dataset):
    """The authors' splits of one of SPLIT_DATASETS: {"train": positions in the official file, "validation": …}."""
    with np.load(SPLITS) as file:
        return {split: file[f"{dataset}_{split}"].astype(int) for split in ("train", "validation")}
