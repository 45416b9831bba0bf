"""Our results beside the published ones: which cells agree, and by how much they differ, ours minus theirs.

A row is a dict of records.read_rows, a run of table1.csv that has been tested; log-likelihoods are nats per image.
"""

import math
from pathlib import Path

from spvae_tf import published
from spvae_tf.reproduction import cross_validation
from spvae_tf.reproduction.text import CELL, cell_name, grouped, mean_and_deviation, of_one_preparation
from spvae_tf.training import configuration, data, records

TEST_SAMPLES = 5000  # Table 1's k
TOLERANCE = 0.02  # of the published number
SIZES = ("Table 2's", "the checkpoint's", "by validation", "others")
FIELDS = ("protocol", *CELL, "sizes", "hidden_units", "latent_dim", "preparation", "runs", "test_ll", "test_ll_std",
          "paper_test_ll", "compared_with", "difference", "difference_per_pixel", "difference_percent",
          "difference_margin_percent", "val_ll_k5", "val_ll_k5_std", "logged_val_ll_k5", "test_ll_k5",
          "test_ll_k5_std", "logged_test_ll_k5", "verdict", "note")
LOG, TABLE_1 = "the authors' log, k = 5", "Table 1"
SUBSET = "svhn_subset"
TEST_IMAGES = {name: sizes["test"] for name, sizes in data.OFFICIAL_SIZES.items()} | {SUBSET: 1_952}


def read(folder):
    """The rows of `<results_dir>/<protocol>`, none where nothing has been run; raises InputError for a damaged CSV."""
    return [row for row in records.read_rows(Path(folder) / "table1.csv") if row["test_ll"] is not None]


def folders(results_dir):
    """dict protocol -> its folder in a folder of results, or that folder itself where it holds one protocol's runs."""
    folder = Path(results_dir)
    if rows := read(folder):
        return {rows[0]["protocol"]: folder}
    return {protocol: folder / protocol for protocol in configuration.PROTOCOLS}


def read_protocols(results_dir):
    """dict protocol -> of `read`."""
    return {protocol: read(folder) for protocol, folder in folders(results_dir).items()}


def why_partial(row):
    """What keeps a run from counting as Table 1, a list of texts: its k, its test images, the end of its training."""
    images = TEST_IMAGES[row["dataset"]]
    reasons = {f"k = {row['num_samples']}": row["num_samples"] != TEST_SAMPLES,
               f"{row['num_test_images']} of {images} test images": row["num_test_images"] != images,
               f"cut off after {row['batches']} batches": cut_off(row)}
    return [reason for reason, holds in reasons.items() if holds]


def cut_off(row):
    """Whether something other than early stopping ended a run."""
    patience = configuration.PROTOCOLS[row["protocol"]]["patience"] * configuration.SETTINGS["validate_every"]
    return row["batches"] - row["best_batch"] < patience


def counted(rows):
    """The runs of a cell that count, each seed once, and a note on those left out; where none counts, all, and why.

    They are of one preparation of the images.
    """
    whole = [row for row in rows if not why_partial(row)]
    used = of_one_preparation(whole or rows)
    if not whole:
        return used, "; ".join(sorted({", ".join(why_partial(row)) for row in used}))
    once = {(row["hidden_units"], row["latent_dim"], row["seed"]): row for row in used}
    left_out = {"partial": len(rows) - len(whole), "earlier": len(whole) - len(used)}
    return list(once.values()), ", ".join(f"{count} {kind} runs left out" for kind, count in left_out.items() if count)


def sizes_of(row, cell):
    """Where a run's sizes come from, one of SIZES; `cell` is the paper's."""
    if row["preset"] == "grid":
        return "by validation"
    return {(cell.hidden_units, cell.latent_dim): "Table 2's", cell.checkpoint: "the checkpoint's"}.get(
        (row["hidden_units"], row["latent_dim"]), "others")


def compare(rows):
    """A protocol's runs beside the paper's cells: dicts of FIELDS, one for each kind of sizes, or for "not run"."""
    compared, by_cell = [], grouped(rows, *CELL)
    for key, cell in published.CELLS.items():
        kinds = {sizes: [row for row in by_cell.get(key, ()) if sizes_of(row, cell) == sizes] for sizes in SIZES}
        # of two grids, one inside the other, the better winner counts
        kinds["by validation"] = [cross_validation.select(winners) for _, winners in
                                  sorted(grouped(of_one_preparation(kinds["by validation"]), "seed").items())]
        compared += [_compare(key, cell, sizes, runs) for sizes, runs in kinds.items() if runs] or [
            dict.fromkeys(FIELDS) | dict(zip(CELL, key)) | dict(runs=0, paper_test_ll=cell.test_ll, verdict="not run")]
    return compared


def compare_protocols(results_dir):
    """dict protocol -> of `compare`."""
    return {protocol: compare(rows) for protocol, rows in read_protocols(results_dir).items()}


def verdict(difference, published_value, deviation, runs):
    """What the mean of `runs` seeds, `deviation` their standard deviation, says of a published value.

    It agrees when it lies within 2 % and twice its standard error does so, too. It disagrees when it lies outside 2 %
    and outside two standard deviations over seeds. Else it is undecided. One run only lies within or outside 2 %.
    """
    tolerance = TOLERANCE * abs(published_value)
    within = abs(difference) <= tolerance
    if runs == 1:
        return f"{'within' if within else 'outside'} {100 * TOLERANCE:.0f} %, one run"
    if within:
        return "agrees" if 2 * deviation / math.sqrt(runs) <= tolerance else "undecided"
    return "disagrees" if abs(difference) > 2 * deviation else "undecided"


def _compare(key, cell, sizes, rows):
    """A row of `compare` for runs of one kind of sizes, at least one."""
    used, left_out = counted(rows)
    row = dict(zip(CELL, key)) | dict(sizes=sizes, runs=len(used), paper_test_ll=cell.test_ll)
    row |= {field: used[0][field] for field in ("protocol", "preparation")}
    for size in ("hidden_units", "latent_dim"):
        row[size] = used[0][size] if len({run[size] for run in used}) == 1 else None
    for field in ("test_ll", "val_ll_k5", "test_ll_k5"):
        row[field], deviation = mean_and_deviation([run[field] for run in used])
        row[f"{field}_std"] = deviation if len(used) > 1 else None
    row["logged_val_ll_k5"], row["logged_test_ll_k5"] = {
        "Table 2's": (cell.logged_val_ll, cell.logged_test_ll),
        "the checkpoint's": cell.checkpoint_logged}.get(sizes, (None, None))
    field, theirs, source, note = "test_ll", cell.test_ll, TABLE_1, ""
    if cell.checkpoint and sizes == "Table 2's":
        field, theirs, source = "test_ll_k5", cell.logged_test_ll, LOG
        note = "Table 1's number belongs to another checkpoint, H = {}, n_z = {}".format(*cell.checkpoint)
    if sizes == "others":
        note = "neither Table 2's sizes nor found by validation"
    difference = row[field] - theirs
    partial = why_partial(used[0]) or sizes == "others"
    return row | dict(
        compared_with=source, difference=difference, difference_per_pixel=difference / published.SIDES[key[1]] ** 2,
        difference_percent=100 * difference / abs(theirs),
        difference_margin_percent=100 * difference / published.margin(published.PAIRS[0], *key[1:]),
        note="; ".join(filter(None, (left_out, note))),
        verdict="partial" if partial else verdict(difference, theirs, row[f"{field}_std"], len(used)))


def compare_sizes(rows):
    """The rows of table2.csv with `difference`, in thousands, `difference_percent` and `verdict` besides."""
    differences = [row["params"] // 1000 - row["paper_kparams"] for row in rows]  # the paper's are cut off
    return [row | dict(difference=difference, difference_percent=100 * difference / row["paper_kparams"],
                       verdict="disagrees" if difference else "agrees") for row, difference in zip(rows, differences)]


def failing(compared, sizes=(), verdicts=("disagrees", "undecided")):
    """A line for each cell of Table 1 (`compare`) and Table 2 (`compare_sizes`) that has one of the verdicts."""
    return [f"{row['verdict']}: protocol {row['protocol']}, {cell_name(row)}: {row['difference']:+.1f} nats "
            f"({row['difference_percent']:+.1f} %) from {row['compared_with']}, over {row['runs']} runs"
            for row in compared if row["verdict"] in verdicts] + [
        f"{row['verdict']}: {cell_name(row)}: {row['params']:,} parameters, {row['difference']:+,}k "
        f"({row['difference_percent']:+.1f} %) from Table 2" for row in sizes if row["verdict"] in verdicts]


def without_a_cell(rows):
    """The names of data sets that no cell of Table 1 is about: samples, and a user's own images."""
    return sorted({row["dataset"] for row in rows} - set(published.DATASETS))
