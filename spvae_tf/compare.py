"""Our results beside the published ones: which cells agree and by how much they differ, and the tables of RESULTS.md.

Everything here is a function of the CSVs that the runs left; log-likelihoods are nats per image.
"""

import math
import re
from pathlib import Path

from spvae_tf import authors, data, experiment, figures, grid, paper, results, sweep, usefulness
from spvae_tf.errors import InputError

TEST_SAMPLES = 5000  # Table 1's k
TOLERANCE, DEVIATIONS = 0.02, 2  # a cell agrees within 2 % of the published number, or within two deviations over seeds
PIXELS = {"mnist": 28 * 28, "svhn_cropped": 32 * 32, "cifar10": 32 * 32}
FIELDS = ("model", "dataset", "likelihood", "sizes", "hidden_units", "latent_dim", "runs", "test_ll", "test_ll_std",
          "paper_test_ll", "compared_with", "difference", "difference_per_pixel", "difference_percent", "val_ll_k5",
          "val_ll_k5_std", "logged_val_ll_k5", "test_ll_k5", "test_ll_k5_std", "logged_test_ll_k5", "verdict", "note")
SEEDS = {"SPVAE": 3, "VAE": 3, "Conv-SPVAE": 1, "Conv-VAE": 1}  # that a cell is to be run with
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
    rows = experiment.read_rows(Path(folder) / "table1.csv")
    if not rows:
        raise InputError(f"{folder} holds no finished runs of Table 1")
    return [row for row in rows if row["test_ll"] is not None]


def shortcomings(row):
    """What keeps a run from counting as Table 1.

    Args:
      row: of table1.csv, of a data set of TEST_IMAGES.

    Returns:
      list of str, empty for a run that early stopping ended and that was tested with k = 5,000 on the whole test set.
    """
    found, images = [], TEST_IMAGES[row["dataset"]]
    if not math.isfinite(row["test_ll"]):
        found.append(f"test ELBO {row['test_ll']}")
    if row["num_samples"] != TEST_SAMPLES:
        found.append(f"k = {row['num_samples']}")
    if row["num_test_images"] != images:
        found.append(f"{row['num_test_images']} of {images} test images")
    if _cut_off(row):
        found.append(f"cut off after {row['batches']} batches")
    return found


def _cut_off(row):
    """Whether something else than early stopping ended a run."""
    patience = experiment.PROTOCOLS[row["protocol"]]["patience"] * experiment.make_config().validate_every
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
    for key, cell in paper.PAPER.items():
        kinds = {}
        for row in rows:
            if (row["model"], row["dataset"], row["likelihood"]) == key:
                kinds.setdefault(_sizes(row, cell), []).append(row)
        if winners := kinds.get("by validation"):  # of two grids, one inside the other, the better counts
            kinds["by validation"] = [grid.select([row for row in winners if row["seed"] == seed])
                                      for seed in sorted({row["seed"] for row in winners})]
        compared += [_compare(key, cell, sizes, kinds[sizes]) for sizes in sorted(kinds, key=SIZES.index)]
        if not kinds:
            compared.append(dict.fromkeys(FIELDS) | dict(
                zip(("model", "dataset", "likelihood"), key), runs=0, paper_test_ll=cell.test_ll, verdict="not run"))
    return compared


SIZES = ("Table 2's", "the checkpoint's", "by validation", "others")


def _sizes(row, cell):
    sizes = row["hidden_units"], row["latent_dim"]
    if row["preset"] == "grid":
        return "by validation"
    return {(cell.hidden_units, cell.latent_dim): "Table 2's", cell.checkpoint: "the checkpoint's"}.get(sizes, "others")


def _counted(rows):
    """The runs that count, each seed once, or all where none does; and what keeps the others from it."""
    whole = [row for row in rows if not shortcomings(row)]
    if not whole:
        return rows, "; ".join(sorted({", ".join(shortcomings(row)) for row in rows}))
    once = {(row["hidden_units"], row["latent_dim"], row["seed"]): row for row in whole}
    return list(once.values()), f"{len(rows) - len(whole)} partial runs left out" if len(whole) < len(rows) else ""


def _compare(key, cell, sizes, rows):
    used, partial = _counted(rows)
    whole = not shortcomings(used[0])
    ours = {}
    for name in ("test_ll", "val_ll_k5", "test_ll_k5"):
        ours[name], deviation = results.mean_and_deviation([row[name] for row in used])
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
        difference=difference, difference_per_pixel=difference / PIXELS[key[1]],
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
    mean, deviation = results.mean_and_deviation(values)  # of a single value the deviation is NaN: nothing lies within
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

def aligned(lines):
    """Lists of cells, the first the head, as text in columns."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(line, widths)).rstrip() for line in lines)


def markdown(lines):
    """Lists of cells, the first the head, as a table in Markdown."""
    head, *body = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *body]) if body else "Nothing has been run."


def _cell_name(row):
    return f"{row['model']}, {row['dataset']}, {row['likelihood']}"


def _number(value, digits=1, sign=""):
    return "—" if value is None or math.isnan(value) else f"{value:{sign}.{digits}f}"


def _spread(mean, deviation, runs, sign=""):
    if mean is None:
        return "—"
    spread = "" if deviation is None or math.isnan(deviation) else f" ± {deviation:.1f}"
    return f"{_number(mean, 1, sign)}{spread} ({runs})"


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
            _cell_name(row), row["sizes"], f"{row['hidden_units'] or 'various'}, {row['latent_dim'] or 'various'}",
            _spread(row["test_ll"], row["test_ll_std"], row["runs"]), str(row["paper_test_ll"]),
            _number(row["difference"], 1, "+"), _number(row["difference_per_pixel"], 4, "+"),
            _number(row["difference_percent"], 1, "+"), _reference(row),
            row["verdict"] + (f" ({row['note']})" if row["note"] else "")])
    return lines


def _reference(row):
    """What a cell is compared with, and the two values where they are not ours and the paper's in its row."""
    if row["compared_with"] == TABLE_1:
        return TABLE_1
    ours = _spread(row["test_ll_k5"], row["test_ll_k5_std"], row["runs"])
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
            lines.append([_cell_name(row), row["sizes"]])
            for name in ("val_ll_k5", "test_ll_k5"):
                lines[-1] += [_spread(row[name], row[f"{name}_std"], row["runs"]),
                              _number(row[f"logged_{name}"], 0)]
    return lines


def table2_lines(rows):
    """Table 2: our exact counts and the paper's thousands, which are cut off; so is the difference.

    Args:
      rows: of tables.table2.

    Returns:
      list of lists of str, the first the head.
    """
    lines = [["cell", "ours", "paper", "difference", "%", "verdict"]]
    for row in rows:
        thousands, published = row["params"] // 1000, row["paper_kparams"]
        lines.append([_cell_name(row), f"{row['params']:,}", f"{published}k", f"{thousands - published:+,}k",
                      _number(100 * (thousands - published) / published, 1, "+"),
                      "agrees" if thousands == published else "disagrees"])
    return lines


def table2_disagreements(rows):
    """One line for each model whose size is not the paper's.

    Args:
      rows: of tables.table2.

    Returns:
      list of str.
    """
    return [f"{name}: {ours} parameters, {difference} ({per_cent} %) from Table 2"
            for name, ours, _, difference, per_cent, verdict in table2_lines(rows)[1:] if verdict == "disagrees"]


def not_run(compared):
    """The names of the cells that have not been run."""
    return [_cell_name(row) for row in compared if row["verdict"] == "not run"]


# --- RESULTS.md -------------------------------------------------------------------------------------------------------

PAIRS = (("SPVAE", "VAE"), ("Conv-SPVAE", "Conv-VAE"))


def results_blocks(results_dir):
    """Every figure of RESULTS.md, recomputed from the CSVs.

    Args:
      results_dir: folder with `<protocol>/table1.csv`, `<protocol>/low_data_sweep.csv`, table2.csv, usefulness.csv and
        svhn_subset/`<protocol>`/table1.csv; what is not there has not been run.

    Returns:
      dict name of a block -> its Markdown.
    """
    rows = read_protocols(results_dir)
    compared = {protocol: compare(rows[protocol]) for protocol in rows}
    blocks = {"margins": markdown(margin_lines(compared)), "the authors' choice": markdown(authors.choice_lines()),
              "svhn subset": _subset_block(results_dir),
              "usefulness": markdown(usefulness.table_lines(_rows_if_there(Path(results_dir) / "usefulness.csv"))),
              "table 2": markdown(table2_lines(results.read_table(Path(results_dir) / "table2.csv")))}
    for protocol in rows:
        blocks[f"table 1, {protocol}"] = markdown(table1_lines(compared[protocol]))
        blocks[f"validation, {protocol}"] = markdown(validation_lines(compared[protocol]))
        blocks[f"less data, {protocol}"] = markdown(sweep_lines(Path(results_dir) / protocol))
        blocks[f"cost, {protocol}"] = markdown(cost_lines(rows[protocol]))
        blocks[f"not run, {protocol}"] = _not_run_block(rows[protocol], protocol)
    return blocks


def _rows_if_there(path):
    return results.read_table(path) if path.exists() else []


def read_protocols(results_dir):
    """The tested runs under each protocol.

    Args:
      results_dir: folder of `<protocol>` folders; what is not there has not been run.

    Returns:
      dict protocol -> rows of `read`.
    """
    return {protocol: [row for row in experiment.read_rows(Path(results_dir) / protocol / "table1.csv")
                       if row["test_ll"] is not None] for protocol in experiment.PROTOCOLS}


def fill(text, blocks):
    """Puts blocks between their marks, `<!-- begin: name -->` and `<!-- end: name -->`.

    Args:
      text: of RESULTS.md.
      blocks: of `results_blocks`.

    Returns:
      The text with its blocks made anew.

    Raises:
      InputError: when the text names a block that there is not, lacks one, or has marks that do not match.
    """
    pattern = re.compile(r"<!-- begin: (.+?) -->\n.*?<!-- end: (.+?) -->", re.DOTALL)
    marks = re.findall(r"<!-- (?:begin|end): (.+?) -->", text)
    if marks != [name for pair in pattern.findall(text) for name in pair] or marks[::2] != marks[1::2]:
        raise InputError("the marks of the blocks do not match; each is <!-- begin: NAME --> … <!-- end: NAME -->")
    if sorted(marks[::2]) != sorted(blocks):
        raise InputError(f"the blocks are {', '.join(sorted(marks[::2]))}; they must be {', '.join(sorted(blocks))}")
    return pattern.sub(lambda m: f"<!-- begin: {m[1]} -->\n{blocks[m[1]]}\n<!-- end: {m[1]} -->", text)


def margin_lines(compared):
    """By how much the model with an SPN beats the one without, at Table 2's sizes, on every benchmark.

    The deviation is that of a difference of two runs, the root of the sum of both variances over seeds.

    Args:
      compared: dict protocol -> of `compare`.

    Returns:
      list of lists of str, the first the head; nats per image, in brackets the runs of either model.
    """
    lines = [["benchmark", "difference", "published", *(f"protocol {name}" for name in compared)]]
    for one, other in PAIRS:
        for dataset, likelihood in dict.fromkeys(key[1:] for key in paper.PAPER):
            cells = [paper.PAPER[name, dataset, likelihood] for name in (one, other)]
            mark = " *" if any(cell.checkpoint for cell in cells) else ""
            lines.append([f"{dataset}, {likelihood}", f"{one} − {other}",
                          f"{cells[0].test_ll - cells[1].test_ll:+d}{mark}",
                          *(_margin(c, [(name, dataset, likelihood) for name in (one, other)])
                            for c in compared.values())])
    return lines


def _margin(compared, keys):
    whole = {(r["model"], r["dataset"], r["likelihood"]): r for r in compared
             if r["sizes"] == "Table 2's" and r["verdict"] in ("agrees", "disagrees")}
    if not all(key in whole for key in keys):
        return "—"
    one, other = (whole[key] for key in keys)
    deviation = math.hypot(*(math.nan if r["test_ll_std"] is None else r["test_ll_std"] for r in (one, other)))
    return _spread(one["test_ll"] - other["test_ll"], deviation, f"{one['runs']}, {other['runs']}", "+")


def cost_lines(rows):
    """What the runs took.

    Args:
      rows: of `read`.

    Returns:
      list of lists of str, the first the head.
    """
    lines, groups = [["cell", "H, n_z", "runs", "batches", "best after", "hours of training, all runs", "device"]], {}
    for row in rows:
        if row["dataset"] in paper.DATASETS:
            groups.setdefault((_cell_name(row), row["hidden_units"], row["latent_dim"]), []).append(row)
    for (name, *sizes), group in groups.items():
        mean = {key: sum(row[key] for row in group) / len(group) for key in ("batches", "best_batch")}
        lines.append([name, "{}, {}".format(*sizes), str(len(group)), f"{mean['batches']:.0f}",
                      f"{mean['best_batch']:.0f}", f"{sum(row['train_seconds'] for row in group) / 3600:.2f}",
                      "; ".join(sorted({row["device"] for row in group}))])
    return lines


def subset_lines(results_dir):
    """The SVHN subset, under its own name, beside the authors' sweep at about as small a part of SVHN.

    Args:
      results_dir: folder with svhn_subset/`<protocol>`/table1.csv.

    Returns:
      list of lists of str, the first the head; a line for the runs of the same sizes, of which the partial ones do not
      count where there are others.
    """
    sweep, groups = paper.digitized_sweep(), {}
    for protocol, rows in read_protocols(Path(results_dir) / SUBSET).items():
        for row in rows:
            if row["dataset"] == SUBSET:
                key = row["likelihood"], row["model"], protocol, row["hidden_units"], row["latent_dim"]
                groups.setdefault(key, []).append(row)
    lines = [["run", "H, n_z", "protocol", "training images", "test, k = 5 (runs)", "test, k = 5000 (runs)",
              "authors, SVHN at 5 %, k = 5", "at 6 %", "note"]]
    for (likelihood, model, protocol, *sizes), group in sorted(groups.items()):
        curve, (used, partial) = sweep.get((model, "svhn_cropped", likelihood), {}), _counted(group)
        lines.append([_cell_name(used[0]), "{}, {}".format(*sizes), protocol,
                      ", ".join(sorted({str(row["num_train"]) for row in used})),
                      *(_spread(*results.mean_and_deviation([row[name] for row in used]), len(used))
                        for name in ("test_ll_k5", "test_ll")), *(_number(curve.get(at)) for at in (0.05, 0.06)),
                      partial if not shortcomings(used[0]) else f"partial ({partial})"])
    return lines


def sweep_lines(folder):
    """Figure 2 as a table: the test ELBO (k = 5) on the whole training set, and what a part of it costs.

    Args:
      folder: `<results_dir>/<protocol>`, with low_data_sweep.csv.

    Returns:
      list of lists of str, the first the head; a line for each model whose runs early stopping ended, nats per image,
      paired by seed, in brackets the runs.
    """
    rows = [row for row in experiment.read_rows(sweep.path_of(folder), sweep.FIELDS)
            if row["dataset"] in paper.DATASETS and not _cut_off(row)]
    fractions = sorted({row["train_fraction"] for row in rows}, reverse=True)
    lines = [["model", "likelihood", "data set", "sizes", *map(figures.per_cent, fractions)]]
    for preset, sizes in (("tuned", "Table 2's"), ("grid", "by validation")):
        for (dataset, likelihood, model), lost in sweep.losses([r for r in rows if r["preset"] == preset]).items():
            lines.append([model, likelihood, dataset, sizes])
            for fraction in fractions:
                values = lost.get(fraction)
                lines[-1].append(_spread(*results.mean_and_deviation(values), len(values), "+" if fraction < 1 else "")
                                 if values else "—")
    return lines


def _subset_block(results_dir):
    """The table of the SVHN subset, or the command that would run it."""
    lines = subset_lines(results_dir)
    return markdown(lines) if len(lines) > 1 else "\n".join([markdown(lines), "", "```bash", SUBSET_COMMAND, "```"])


SUBSET_COMMAND = (
    f"bash scripts/reproduce_table1.sh --preset=tuned --protocol=released --datasets=<path>/{SUBSET}.npz "
    f"--cell_of=svhn_cropped --models=SPVAE,VAE --results_dir=results/{SUBSET}")


def _not_run_block(rows, protocol):
    """The cells that were not run, or with too few seeds, and the command that would run each."""
    missing = {}
    for (model, dataset, likelihood), cell in paper.PAPER.items():
        for preset, sizes in (("tuned", "Table 2's"), ("checkpoint", "the checkpoint's")):
            there = {row["seed"] for row in rows if (row["model"], row["dataset"], row["likelihood"])
                     == (model, dataset, likelihood) and _sizes(row, cell) == sizes}
            left = [seed for seed in range(SEEDS[model]) if seed not in there][:max(SEEDS[model] - len(there), 0)]
            if left and (preset == "tuned" or cell.checkpoint):
                missing.setdefault((preset, dataset, model, tuple(left)), []).append(likelihood)
    if not missing:
        return "Every cell has been run."
    return "\n".join(["```bash", *(
        f"bash scripts/reproduce_table1.sh --preset={preset} --protocol={protocol} --datasets={dataset} "
        f"--models={model} --likelihoods={','.join(likelihoods)} --seeds={','.join(map(str, seeds))}"
        for (preset, dataset, model, seeds), likelihoods in missing.items()), "```"])


MARKERS = (("s", "none", 0.12), ("o", "full", -0.12))  # of the protocols; they can be told apart in grey


def plot(results_dir, path):
    """Ours against the paper's at Table 2's sizes: a panel for each benchmark that was run, models side by side.

    Args:
      results_dir: as in `results_blocks`.
      path: of the PNG.
    """
    compared = {protocol: compare(rows) for protocol, rows in read_protocols(results_dir).items()}
    benchmarks = [key for key in dict.fromkeys(key[1:] for key in paper.PAPER)
                  if any((r["dataset"], r["likelihood"]) == key and r["runs"] for c in compared.values() for r in c)]
    figure, all_axes = figures.panels(len(benchmarks), 3.4, 3.6)
    for axes, key in zip(all_axes, benchmarks):
        axes.set(title=", ".join(key), ylabel="test ELBO, k = 5000 (nats per image)", xlim=(-0.5, 3.5))
        axes.set_xticks(range(4), results.MODEL_ORDER, fontsize=8)
        cells = [paper.PAPER[model, *key] for model in results.MODEL_ORDER]
        axes.plot(range(4), [math.nan if c.checkpoint else c.test_ll for c in cells], "k_", ms=22, mew=2, label="paper")
        axes.plot(range(4), [c.test_ll if c.checkpoint else math.nan for c in cells], "kx", ms=7,
                  label="paper, of a checkpoint of other sizes")
        for (protocol, rows), (marker, fill_style, shift) in zip(compared.items(), MARKERS):
            rows = [r for r in rows if (r["dataset"], r["likelihood"]) == key and r["sizes"] == "Table 2's"
                    and r["verdict"] in ("agrees", "disagrees")]
            deviations = [math.nan if r["test_ll_std"] is None else r["test_ll_std"] for r in rows]  # NaN: no bar
            axes.errorbar([results.MODEL_ORDER.index(r["model"]) + shift for r in rows], [r["test_ll"] for r in rows],
                          deviations, fmt=marker, fillstyle=fill_style, color="0.3", ms=6, capsize=3, lw=1,
                          label=f"ours, protocol {protocol}")
        axes.grid(axis="y", alpha=0.3)
    if benchmarks:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
    figures.save(figure, path)
