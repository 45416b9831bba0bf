"""The numbers printed in the paper (Tables 1 and 2), the hyper-parameters behind them, and the authors' own logs."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spvae_tf import files

DATA = Path(__file__).parent / "paper_data"
SPLIT_DATASETS = ("mnist", "cifar10")  # whose division by the authors is known


class Cell(NamedTuple):
    """One cell of Tables 1 and 2."""

    test_ll: int  # Table 1: 5,000-sample IWAE ELBO on the test set, nats per image
    kparams: int  # Table 2: thousands of parameters, cut off
    hidden_units: int  # H and
    latent_dim: int  # n_z that give Table 2's size
    logged_val_ll: int | None  # the authors' log of a run of that size, k = 5, the best on validation; None: not logged
    logged_test_ll: int | None
    checkpoint: tuple | None  # (H, n_z) of the checkpoint behind Table 1 where they are not Table 2's
    checkpoint_logged: tuple | None  # (validation, test) of the authors' log at those sizes, k = 5


def _read_cells():
    cells = {}
    for row in files.read_table(DATA / "tables_1_and_2.csv"):
        *key, hidden_units, latent_dim, val_ll, test_ll = row.values()
        others = ((hidden_units, latent_dim), (val_ll, test_ll)) if hidden_units else (None, None)
        cells[tuple(key[:3])] = Cell(*key[3:], *others)
    return cells


SIDES = {"mnist": 28, "svhn_cropped": 32, "cifar10": 32}  # of the images, in pixels
DATASETS = tuple(SIDES)
LIKELIHOODS = ("continuous", "discrete")
CELLS = _read_cells()  # (model, data set, likelihood) -> Cell
BENCHMARKS = tuple(dict.fromkeys(key[1:] for key in CELLS))
PAIRS = (("SPVAE", "VAE"), ("Conv-SPVAE", "Conv-VAE"))


def whole_name(dataset):
    """The data set that a sample was drawn from: "mnist_sample" -> "mnist"."""
    return dataset.removesuffix("_sample")


def num_pixels(dataset):
    """Of an image of one of DATASETS or a sample of it, None of others."""
    side = SIDES.get(whole_name(dataset))
    return side and side**2


def cell(model, dataset, likelihood):
    """The Cell of a run, or None where the paper has none, as of a user's own images; a sample counts as its whole."""
    return CELLS.get((model, whole_name(dataset), likelihood))


def margin(pair, dataset, likelihood):
    """By how many nats Table 1's first model of a pair beats the second."""
    one, other = (CELLS[model, dataset, likelihood].test_ll for model in pair)
    return one - other


def digitized_sweep():
    """Figure 2, read off the plots of the authors: dict key of CELLS -> dict fraction -> test ELBO, k = 5."""
    sweep = {}
    for row in files.read_table(DATA / "figure2_digitized.csv"):
        curve = sweep.setdefault((row["model"], row["dataset"], row["likelihood"]), {})
        curve[row["train_fraction"]] = row["test_ll_k5_digitized"]
    return sweep


def digitized_at(curve, fraction):
    """A curve of `digitized_sweep` at a fraction, between two linear in the logarithm; NaN outside."""
    fractions, values = zip(*sorted(curve.items()) or [(1, math.nan)])
    return float(np.interp(math.log(fraction), np.log(fractions), values, left=math.nan, right=math.nan))


def authors_runs():
    """The runs in the authors' notebooks: dict key of CELLS -> dict (H, n_z) -> [(validation, test), …], best first."""
    runs = {}
    for row in files.read_table(DATA / "authors_runs.csv"):
        sizes = runs.setdefault((row["model"], row["dataset"], row["likelihood"]), {})
        sizes.setdefault((row["hidden_units"], row["latent_dim"]), []).append((row["val_ll_k5"], row["test_ll_k5"]))
    return {key: {size: sorted(values, reverse=True) for size, values in sizes.items()} for key, sizes in runs.items()}


def authors_splits(dataset):
    """The authors' splits of one of SPLIT_DATASETS: {"train": positions in the official file, "validation": …}."""
    with np.load(DATA / "splits.npz") as file:
        return {split: file[f"{dataset}_{split}"].astype(int) for split in ("train", "validation")}
