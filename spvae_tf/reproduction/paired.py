"""From the values of every test image alone: means and standard errors of runs, and differences paired by image.

`folders` are of compare.folders. Only runs on the authors' images have values.
"""

import itertools

import numpy as np

from spvae_tf import files, published
from spvae_tf.errors import InputError
from spvae_tf.reproduction import compare, text
from spvae_tf.training.evaluation import Evaluation

NONE = "No run has values for each test image yet."
ROUNDING = 1e-3  # nats: tables have three digits, values are float32


def read(folder, rows):
    """The values of the rows that have them: dict name -> Evaluation; raises InputError for a damaged file."""
    found = {}
    for row in rows:
        path = folder / "values" / f"{row['name']}.npz"
        if row["preparation"] == "authors" and path.exists():
            values, k = files.read_npz(path, ["log_prob", "k"]).values()
            if (values.shape, k) != ((row["num_test_images"],), row["num_samples"]):
                raise InputError(f"{path} has values of shape {values.shape} and k = {k}; its run was tested on "
                                 f"{row['num_test_images']} images with k = {row['num_samples']}")
            found[row["name"]] = Evaluation(np.float64(values), int(k))
    return found


def recomputed(folders):
    """Lines: each run's mean and standard error again, beside its table's; and the names of runs that differ.

    A run on the authors' images that has no values has a line without them.
    """
    lines, wrong = [["run", "protocol", "mean", "table", "standard error", "table"]], []
    for protocol, folder in folders.items():
        rows = compare.read(folder)
        values = read(folder, rows)
        for row in filter(lambda row: row["preparation"] == "authors", rows):
            again, written = (None, None), (row["test_ll"], row["test_ll_stderr"])
            if tested := values.get(row["name"]):
                again = (tested.mean, tested.stderr)
                if not np.allclose(again, written, rtol=0, atol=ROUNDING, equal_nan=True):
                    wrong.append(f"{protocol}, {row['name']}")
            shown = (text.number(value, 3) for pair in zip(again, written) for value in pair)
            lines.append([row["name"], protocol, *shown])
    return lines, wrong


def check(folders):
    """Prints `recomputed` and `differences`; returns a line for each run that differs from its table."""
    lines, wrong = recomputed(folders)
    if all(mean == "—" for _, _, mean, *_ in lines[1:]):
        print(NONE)
        return []
    print(f"From the values of every test image, nats per image\n\n{text.aligned(lines)}\n\n"
          f"Differences\n\n{text.aligned(differences(folders))}")
    return [f"differs from its table: {name}" for name in wrong]


def differences(folders):
    """Lines: the model with an SPN minus that without, at Table 2's sizes, the same seed, image by image.

    The standard errors are over test images: of the differences, and as if the two tests were independent.
    """
    lines = [["benchmark", "difference", "protocol", "seeds", "nats", "standard error, paired", "unpaired"]]
    for protocol, folder in folders.items():
        by_cell = _by_cell(folder)
        for pair, benchmark in itertools.product(published.PAIRS, published.BENCHMARKS):
            one, other = (by_cell.get((model, *benchmark), {}) for model in pair)
            seeds = sorted(one.keys() & other.keys())
            for some in [[seed] for seed in seeds] + [seeds] * (len(seeds) > 1):
                means = [np.mean([found[seed] for seed in some], axis=0) for found in (one, other)]
                unpaired = np.hypot(*(Evaluation(mean, None).stderr for mean in means))
                paired = Evaluation(np.subtract(*means), None)
                lines.append([", ".join(benchmark), " − ".join(pair), protocol, ", ".join(map(str, some)),
                              text.number(paired.mean, sign="+"), text.number(paired.stderr), text.number(unpaired)])
    return lines


def _by_cell(folder):
    """Values of whole runs at Table 2's sizes: dict key of published.CELLS -> dict seed -> float64 [images]."""
    found = text.grouped(compare.read(folder), *text.CELL)
    rows = [row for key, cell in published.CELLS.items() for row in found.get(key, ())
            if compare.sizes_of(row, cell) == "Table 2's" and not compare.why_partial(row)]
    values = read(folder, rows)
    return {key: {row["seed"]: values[row["name"]].log_prob for row in of_cell if row["name"] in values}
            for key, of_cell in text.grouped(rows, *text.CELL).items()}
