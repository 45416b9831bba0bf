"""Our results beside the published ones: which cells agree and by how much they differ, and the tables of it.

Everything here is a function of the CSVs that the runs left; log-likelihoods are nats per image.
"""

from pathlib import Path

from spvae_tf import published as paper
from spvae_tf.errors import InputError
from spvae_tf.reproduction import cross_validation as grid
from spvae_tf.reproduction import text
from spvae_tf.training import configuration, data
from spvae_tf.training import records as results

TEST_SAMPLES = 5000  # Table 1's k
TOLERANCE, DEVIATIONS = 0.02, 2  # a cell agrees within 2 % of the published number, or within two deviations over seeds
FIELDS = ("model", "dataset", "likelihood", "sizes", "hidden_units", "latent_dim", "runs", "test_ll", "test_ll_std",
          "paper_test_ll", "compared_with", "difference", "difference_per_pixel", "difference_percent", "val_ll_k5",
          "val_ll_k5_std", "logged_val_ll_k5", "test_ll_k5", "test_ll_k5_std", "logged_test_ll_k5", "verdict", "note")
LOG, TABLE_1 = "the authors' log, k = 5", "Table 1"
SUBSET = "svhn_subset"
TEST_IMAGES = {name: sizes["test"] for name, sizes in data.OFFICIAL_SIZES.items()} | {SUBSET: 1_952}


# --- reading ----------------------------------------------------------------------------------------------------------

def read(folder):
    """The tested runs in a results folder.

    Args:
      folder: `<results_dir>/<protocol>`, with table1.csv.

    Returns:
      list of dicts, the rows of table1.csv that have been tested.

    Raises:
      InputError: when there is no such folder, no finished run in it, or its table is damaged.
    """
    if not Path(folder).is_dir():
        raise InputError(f"there is no folder {folder}")
    rows = results.read_rows(Path(folder) / "table1.csv")
    if not rows:
        raise InputError(f"{folder} holds no finished runs of Table 1")
    return [row for row in rows if row["test_ll"] is not None]


def read_protocols(results_dir):
    """The tested runs under each protocol.

    Args:
      results_dir: folder of `<protocol>` folders; what is not there has not been run.

    Returns:
      dict protocol -> rows of `read`.
    """
    return {protocol: [row for row in results.read_rows(Path(results_dir) / protocol / "table1.csv")
                       if row["test_ll"] is not None] for protocol in configuration.PROTOCOLS}


def shortcomings(row):
    """What keeps a run from counting as Table 1.

    Args:
      row: of table1.csv, of a data set of TEST_IMAGES.

    Returns:
      list of str, empty for a run that early stopping ended and that was tested with k = 5,000 on the whole test set.
    """
    found, images = [], TEST_IMAGES[row["dataset"]]
    if row["num_samples"] != TEST_SAMPLES:
        found.append(f"k = {row['num_samples']}")
    if row["num_test_images"] != images:
        found.append(f"{row['num_test_images']} of {images} test images")
    if cut_off(row):
        found.append(f"cut off after {row['batches']} batches")
    return found


def cut_off(row):
    """Whether something else than early stopping ended a run.

    Args:
      row: of table1.csv.

    Returns:
      bool.
    """
    patience = configuration.PROTOCOLS[row["protocol"]]["patience"] * configuration.make_config().validate_every
    return row["batches"] - row["best_batch"] < patience


# --- comparing --------------------------------------------------------------------------------------------------------

def compare(rows):
    """Sets runs beside the paper's cells.

    Args:
      rows: of `read`, of one protocol. Samples and a user's own images have no cell, and do not count.

    Returns:
      list of dicts with the keys FIELDS, in the order of the tables. A cell has a row for each kind of sizes it was run
      with ("Table 2's", "the checkpoint's", "by validation"), or one that says "not run". Difference is ours minus
      theirs.
    """
    compared = []
    for key, cell in paper.CELLS.items():
        kinds = {}
        for row in rows:
            if (row["model"], row["dataset"], row["likelihood"]) == key:
                kinds.setdefault(sizes_of(row, cell), []).append(row)
        if winners := kinds.get("by validation"):  # of two grids, one inside the other, the better counts
            kinds["by validation"] = [grid.select([row for row in winners if row["seed"] == seed])
                                      for seed in sorted({row["seed"] for row in winners})]
        compared += [_compare(key, cell, sizes, kinds[sizes]) for sizes in sorted(kinds, key=SIZES.index)]
        if not kinds:
            compared.append(dict.fromkeys(FIELDS) | dict(
                zip(("model", "dataset", "likelihood"), key), runs=0, paper_test_ll=cell.test_ll, verdict="not run"))
    return compared


SIZES = ("Table 2's", "the checkpoint's", "by validation", "others")


def sizes_of(row, cell):
    """Where a run's sizes come from.

    Args:
      row: of table1.csv.
      cell: of the paper, for the run's model, data set and likelihood.

    Returns:
      One of SIZES.
    """
    sizes = row["hidden_units"], row["latent_dim"]
    if row["preset"] == "grid":
        return "by validation"
    return {(cell.hidden_units, cell.latent_dim): "Table 2's", cell.checkpoint: "the checkpoint's"}.get(sizes, "others")


def counted(rows):
    """The runs that count as Table 1, each seed once, or all where none does.

    Args:
      rows: of table1.csv, of one cell.

    Returns:
      (rows, what keeps the others, or these, from counting; "" where nothing does).
    """
    whole = [row for row in rows if not shortcomings(row)]
    if not whole:
        return rows, "; ".join(sorted({", ".join(shortcomings(row)) for row in rows}))
    once = {(row["hidden_units"], row["latent_dim"], row["seed"]): row for row in whole}
    return list(once.values()), f"{len(rows) - len(whole)} partial runs left out" if len(whole) < len(rows) else ""


def _compare(key, cell, sizes, rows):
    used, partial = counted(rows)
    whole = not shortcomings(used[0])
    ours = {}
    for name in ("test_ll", "val_ll_k5", "test_ll_k5"):
        ours[name], deviation = text.mean_and_deviation([row[name] for row in used])
        ours[f"{name}_std"] = deviation if len(used) > 1 else None
    logged_val, logged_test = {"Table 2's": (cell.logged_val_ll, cell.logged_test_ll),
                               "the checkpoint's": cell.checkpoint_logged}.get(sizes, (None, None))
    foreign = bool(cell.checkpoint) and sizes == "Table 2's"  # Table 1's number is another model's
    name, reference = ("test_ll_k5", logged_test) if foreign else ("test_ll", cell.test_ll)
    difference = ours[name] - reference
    common = {size: used[0][size] if len({row[size] for row in used}) == 1 else None
              for size in ("hidden_units", "latent_dim")}
    return dict(zip(("model", "dataset", "likelihood"), key)) | common | ours | dict(
        sizes=sizes, runs=len(used), paper_test_ll=cell.test_ll, compared_with=LOG if foreign else TABLE_1,
        difference=difference, difference_per_pixel=difference / paper.SIDES[key[1]] ** 2,
        difference_percent=100 * difference / abs(reference), logged_val_ll_k5=logged_val,
        logged_test_ll_k5=logged_test,
        verdict="partial" if not whole or sizes == "others" else _verdict([row[name] for row in used], reference),
        note="; ".join(_notes(cell, sizes, partial, foreign)))


def _notes(cell, sizes, partial, foreign):
    if partial:
        yield partial
    if foreign:
        yield "Table 1's number belongs to another checkpoint, H = {}, n_z = {}".format(*cell.checkpoint)
    if sizes == "others":
        yield "neither Table 2's sizes nor found by validation"


def _verdict(values, reference):
    mean, deviation = text.mean_and_deviation(values)  # of a single value the deviation is NaN: nothing lies within
    close = abs(mean - reference) <= TOLERANCE * abs(reference) or abs(mean - reference) <= DEVIATIONS * deviation
    return "agrees" if close else "disagrees"


def without_a_cell(rows):
    """The names of data sets that no cell of Table 1 is about: samples, and a user's own images.

    Args:
      rows: of `read`.

    Returns:
      list of str.
    """
    return sorted({row["dataset"] for row in rows} - set(paper.DATASETS))


def disagreements(compared):
    """One line for each cell that was run and disagrees.

    Args:
      compared: of `compare`.

    Returns:
      list of str.
    """
    return [f"{row['model']}, {row['dataset']}, {row['likelihood']}: {row['difference']:+.1f} nats "
            f"({row['difference_percent']:+.1f} %) from {row['compared_with']}, over {row['runs']} runs"
            for row in compared if row["verdict"] == "disagrees"]


# --- tables as text ---------------------------------------------------------------------------------------------------

def cell_name(row):
    """The name of a run's cell.

    Args:
      row: with `model`, `dataset` and `likelihood`.

    Returns:
      str.
    """
    return f"{row['model']}, {row['dataset']}, {row['likelihood']}"


def table1_lines(compared):
    """Table 1: ours, the paper's, and how they differ.

    Args:
      compared: of `compare`.

    Returns:
      list of lists of str, the first the head; cells that were not run are left out.
    """
    lines = [["cell", "sizes", "H, n_z", "ours (runs)", "paper", "difference", "per pixel", "%", "from", "verdict"]]
    for row in compared:
        if row["verdict"] == "not run":
            continue
        lines.append([
            cell_name(row), row["sizes"], f"{row['hidden_units'] or 'various'}, {row['latent_dim'] or 'various'}",
            text.spread(row["test_ll"], row["test_ll_std"], row["runs"]), str(row["paper_test_ll"]),
            text.number(row["difference"], 1, "+"), text.number(row["difference_per_pixel"], 4, "+"),
            text.number(row["difference_percent"], 1, "+"), _reference(row),
            row["verdict"] + (f" ({row['note']})" if row["note"] else "")])
    return lines


def _reference(row):
    """What a cell is compared with, and the two values where they are not ours and the paper's in its row."""
    if row["compared_with"] == TABLE_1:
        return TABLE_1
    ours = text.spread(row["test_ll_k5"], row["test_ll_k5_std"], row["runs"])
    return f"{LOG}: ours {ours}, theirs {row['logged_test_ll_k5']}"


def validation_lines(compared):
    """The same runs at k = 5, on validation and test set, beside the authors' logs of the same sizes.

    Args:
      compared: of `compare`.

    Returns:
      list of lists of str, the first the head.
    """
    lines = [["cell", "sizes", "validation, ours (runs)", "authors' log", "test, ours (runs)", "authors' log"]]
    for row in compared:
        if row["verdict"] != "not run":
            lines.append([cell_name(row), row["sizes"]])
            for name in ("val_ll_k5", "test_ll_k5"):
                lines[-1] += [text.spread(row[name], row[f"{name}_std"], row["runs"]),
                              text.number(row[f"logged_{name}"], 0)]
    return lines


def table2_lines(rows):
    """Table 2: our exact counts and the paper's thousands, which are cut off; so is the difference.

    Args:
      rows: of table2.count_parameters.

    Returns:
      list of lists of str, the first the head.
    """
    lines = [["cell", "ours", "paper", "difference", "%", "verdict"]]
    for row in rows:
        thousands, published = row["params"] // 1000, row["paper_kparams"]
        lines.append([cell_name(row), f"{row['params']:,}", f"{published}k", f"{thousands - published:+,}k",
                      text.number(100 * (thousands - published) / published, 1, "+"),
                      "agrees" if thousands == published else "disagrees"])
    return lines


def table2_disagreements(rows):
    """One line for each model whose size is not the paper's.

    Args:
      rows: of table2.count_parameters.

    Returns:
      list of str.
    """
    return [f"{name}: {ours} parameters, {difference} ({per_cent} %) from Table 2"
            for name, ours, _, difference, per_cent, verdict in table2_lines(rows)[1:] if verdict == "disagrees"]


def not_run(compared):
    """The names of the cells that have not been run."""
    return [cell_name(row) for row in compared if row["verdict"] == "not run"]
