"""The generated blocks of RESULTS.md and README.md: every number on them, recomputed from the CSVs that the runs left.

Tables are text.py's, `rows` those of a CSV, `compared` of compare.compare. Log-likelihoods are nats per image.
"""

import re
from pathlib import Path

import numpy as np

from spvae_tf import files, published
from spvae_tf.errors import InputError
from spvae_tf.reproduction import beyond, compare, figure2, text
from spvae_tf.reproduction.text import CELL, cell_name, grouped
from spvae_tf.spvae import MODELS
from spvae_tf.training import records

SEEDS = {"SPVAE": 3, "VAE": 3, "Conv-SPVAE": 1, "Conv-VAE": 1}  # that a cell is to be run with
PAIRS = (("SPVAE", "VAE"), ("Conv-SPVAE", "Conv-VAE"))
BENCHMARKS = tuple(dict.fromkeys(key[1:] for key in published.CELLS))
BEST = 3  # sizes shown of those that the authors tried
SUBSET_COMMAND = (
    f"bash scripts/reproduce_table1.sh --preset=tuned --protocol=released --datasets=<path>/{compare.SUBSET}.npz "
    f"--cell_of=svhn_cropped --models=SPVAE,VAE --results_dir=results/{compare.SUBSET}")


def results_blocks(results_dir):
    """The blocks of RESULTS.md: dict name -> Markdown."""
    folder = Path(results_dir)
    useful, small = useful_rows(folder), subset(folder)
    tables = {"margins": margins(compare.compare_protocols(folder)), "the authors' choice": authors_choice(),
              "usefulness": usefulness([row for row in useful if row["train_fraction"] == 1]),
              "bounds": bounds(useful), "svhn subset": small,
              "table 2": table2(compare.compare_sizes(files.read_table(folder / "table2.csv")))}
    commands = {}
    for protocol, rows in compare.read_protocols(folder).items():
        compared = compare.compare(rows)
        tables |= {f"table 1, {protocol}": table1(compared), f"validation, {protocol}": at_k5(compared),
                   f"less data, {protocol}": less_data(folder / protocol), f"cost, {protocol}": cost(rows)}
        commands[f"not run, {protocol}"] = commands_for_missing(rows, protocol)
    blocks = {name: text.markdown(lines) for name, lines in tables.items()} | commands
    if len(small) == 1:
        blocks["svhn subset"] += f"\n\n```bash\n{SUBSET_COMMAND}\n```"
    return blocks


def readme_blocks(results_dir):
    """The block of README.md, as `results_blocks`."""
    return {"table 1": text.markdown(summary(compare.compare_protocols(results_dir)))}


def fill(page, blocks):
    """A page with its blocks between `<!-- begin: name -->` and `<!-- end: name -->` made anew, or InputError."""
    pattern = re.compile(r"<!-- begin: (.+?) -->\n.*?<!-- end: \1 -->", re.DOTALL)
    names = pattern.findall(page)
    if len(re.findall("<!-- (?:begin|end): ", page)) != 2 * len(names):
        raise InputError("the marks of the blocks do not match; each is <!-- begin: NAME --> … <!-- end: NAME -->")
    if sorted(names) != sorted(blocks):
        raise InputError(f"the blocks are {', '.join(sorted(names))}; they must be {', '.join(sorted(blocks))}")
    return pattern.sub(lambda m: f"<!-- begin: {m[1]} -->\n{blocks[m[1]]}\n<!-- end: {m[1]} -->", page)


def _ours(row, field):
    return text.spread(row[field], row[f"{field}_std"], row["runs"])


def table1(compared):
    """Ours, the paper's, and how they differ, for the cells that were run."""
    def line(row):
        source = row["compared_with"]
        if source == compare.LOG:
            source += f": ours {_ours(row, 'test_ll_k5')}, theirs {row['logged_test_ll_k5']}"
        return [cell_name(row), row["sizes"], f"{row['hidden_units'] or 'various'}, {row['latent_dim'] or 'various'}",
                _ours(row, "test_ll"), str(row["paper_test_ll"]), text.number(row["difference"], 1, "+"),
                text.number(row["difference_per_pixel"], 4, "+"), text.number(row["difference_percent"], 1, "+"),
                source, row["verdict"] + (f" ({row['note']})" if row["note"] else "")]

    return [["cell", "sizes", "H, n_z", "ours (runs)", "paper", "difference", "per pixel", "%", "from", "verdict"],
            *(line(row) for row in compared if row["runs"])]


def at_k5(compared):
    """The same runs at k = 5, on validation and test set, beside the authors' logs of the same sizes."""
    return [["cell", "sizes", "validation, ours (runs)", "authors' log", "test, ours (runs)", "authors' log"],
            *([cell_name(row), row["sizes"],
               _ours(row, "val_ll_k5"), text.number(row["logged_val_ll_k5"], 0),
               _ours(row, "test_ll_k5"), text.number(row["logged_test_ll_k5"], 0)] for row in compared if row["runs"])]


def table2(sizes):
    """Our exact parameter counts and the paper's thousands; `sizes` is of compare.compare_sizes."""
    return [["cell", "ours", "paper", "difference", "%", "verdict"],
            *([cell_name(row), f"{row['params']:,}", f"{row['paper_kparams']}k", f"{row['difference']:+,}k",
               text.number(row["difference_percent"], 1, "+"), row["verdict"]] for row in sizes)]


def whole_cells(compared):
    """The cells run as a whole at Table 2's sizes: dict (model, data set, likelihood) -> row."""
    return {tuple(row[field] for field in CELL): row for row in compared
            if row["sizes"] == "Table 2's" and row["verdict"] in ("agrees", "disagrees")}


def summary(compared):
    """Table 1 in short: the cells run as a whole at Table 2's sizes, under any protocol."""
    whole = {protocol: whole_cells(rows) for protocol, rows in compared.items()}
    lines = [["cell", "paper", *(f"ours, protocol {name} (runs)" for name in compared)]]
    for key, cell in sorted(published.CELLS.items(), key=lambda item: BENCHMARKS.index(item[0][1:])):
        if any(key in cells for cells in whole.values()):
            lines.append([", ".join(key), f"{cell.test_ll}{' (of other sizes)' if cell.checkpoint else ''}",
                          *(_ours(cells[key], "test_ll") if key in cells else "—" for cells in whole.values())])
    return lines


def margins(compared):
    """By how much the model with an SPN beats the one without, at Table 2's sizes; in brackets the runs of either."""
    whole = {protocol: whole_cells(rows) for protocol, rows in compared.items()}
    lines = [["benchmark", "difference", "published", *(f"protocol {name}" for name in whole)]]
    for pair in PAIRS:
        for benchmark in BENCHMARKS:
            keys = [(model, *benchmark) for model in pair]
            one, other = (published.CELLS[key] for key in keys)
            mark = " *" if one.checkpoint or other.checkpoint else ""
            lines.append([", ".join(benchmark), " − ".join(pair), f"{one.test_ll - other.test_ll:+d}{mark}",
                          *(_margin(*map(cells.get, keys)) for cells in whole.values())])
    return lines


def _margin(one, other):
    if one is None or other is None:
        return "—"
    deviation = np.hypot(*np.array([one["test_ll_std"], other["test_ll_std"]], float))  # the variances add up
    return text.spread(one["test_ll"] - other["test_ll"], deviation, f"{one['runs']}, {other['runs']}", sign="+")


def authors_choice():
    """The sizes behind Table 1 among all that the authors logged, by the validation ELBO (k = 5) of their best run."""
    lines = [["cell", "sizes logged", "Table 2's H, n_z: validation (place)",
              *(f"{place}." for place in range(1, BEST + 1)), "sizes run twice: differences"]]
    runs = published.authors_runs()
    for key, cell in published.CELLS.items():
        logged, chosen = runs[key], (cell.hidden_units, cell.latent_dim)
        order = sorted(logged, key=logged.get, reverse=True)  # by the best run of each
        shown = {size: "{}, {}: {:.0f}".format(*size, logged[size][0][0]) for size in order}
        place = (f"{shown[chosen]} ({order.index(chosen) + 1}.)" if chosen in logged
                 else "{}, {}: not logged".format(*chosen))
        twice = sorted(values[0][0] - values[-1][0] for values in logged.values() if len(values) > 1)
        lines.append([", ".join(key), str(len(order)), place, *list(shown.values())[:BEST],
                      ", ".join(f"{difference:.0f}" for difference in twice) or "—"])
    return lines


def cost(rows):
    """What the runs of each cell and its sizes took."""
    lines = [["cell", "H, n_z", "runs", "batches", "best after", "hours of training, all runs", "device"]]
    whole = [row for row in rows if row["dataset"] in published.DATASETS]
    for (*key, hidden_units, latent_dim), group in grouped(whole, *CELL, "hidden_units", "latent_dim").items():
        hours = {device: sum(row["train_seconds"] for row in runs) / 3600
                 for (device,), runs in sorted(grouped(group, "device").items())}
        means = [sum(row[field] for row in group) / len(group) for field in ("batches", "best_batch")]
        lines.append([", ".join(key), f"{hidden_units}, {latent_dim}", str(len(group)), *map("{:.0f}".format, means),
                      "; ".join(map("{:.2f}".format, hours.values())), "; ".join(hours)])
    return lines


def commands_for_missing(rows, protocol):
    """The commands that would run the cells that were not run, or with too few seeds, as a block of shell."""
    missing, by_cell = {}, grouped(rows, *CELL)
    for (model, dataset, likelihood), cell in published.CELLS.items():
        for preset, sizes in (("tuned", "Table 2's"), ("checkpoint", "the checkpoint's")):
            done = {row["seed"] for row in by_cell.get((model, dataset, likelihood), ())
                    if compare.sizes_of(row, cell) == sizes and not compare.why_partial(row)}
            left = [seed for seed in range(SEEDS[model]) if seed not in done][:max(SEEDS[model] - len(done), 0)]
            if left and (preset == "tuned" or cell.checkpoint):
                missing.setdefault((preset, dataset, model, tuple(left)), []).append(likelihood)
    if not missing:
        return "Every cell has been run."
    return "\n".join(["```bash", *(
        f"bash scripts/reproduce_table1.sh --preset={preset} --protocol={protocol} --datasets={dataset} "
        f"--models={model} --likelihoods={','.join(likelihoods)} --seeds={','.join(map(str, seeds))}"
        for (preset, dataset, model, seeds), likelihoods in missing.items()), "```"])


def subset(results_dir):
    """The SVHN subset, under its own name, beside the authors' sweep at about as small a part of SVHN."""
    lines = [["run", "H, n_z", "protocol", "training images", "test, k = 5 (runs)", "test, k = 5000 (runs)",
              "authors, SVHN at 5 %, k = 5", "at 6 %", "note"]]
    rows = [row for found in compare.read_protocols(Path(results_dir) / compare.SUBSET).values() for row in found
            if row["dataset"] == compare.SUBSET]
    groups = grouped(rows, "likelihood", "model", "protocol", "hidden_units", "latent_dim")
    for (likelihood, model, protocol, *sizes), group in sorted(groups.items(), key=lambda item: item[0]):
        used, partial = compare.counted(group)
        curve = published.digitized_sweep().get((model, "svhn_cropped", likelihood), {})
        lines.append([
            cell_name(used[0]), "{}, {}".format(*sizes), protocol,
            ", ".join(sorted({str(row["num_train"]) for row in used})),
            *(text.mean_of([row[field] for row in used]) for field in ("test_ll_k5", "test_ll")),
            *(text.number(curve.get(fraction)) for fraction in (0.05, 0.06)),
            f"partial ({partial})" if compare.why_partial(used[0]) else partial])
    return lines


def less_data(folder):
    """Figure 2 as a table, of whole runs: on the whole training set, and what a part of it costs, paired by seed."""
    rows = [row for row in records.read_rows(folder / figure2.CSV, figure2.FIELDS)
            if row["dataset"] in published.DATASETS and not compare.cut_off(row)]
    fractions = sorted({row["train_fraction"] for row in rows}, reverse=True)
    lines = [["model", "likelihood", "data set", "sizes", "k", *map(text.per_cent, fractions)]]
    for preset, sizes in (("tuned", "Table 2's"), ("grid", "by validation")):
        swept = [row for row in rows if row["preset"] == preset]
        tested = [row for row in swept if row["test_ll"] is not None and not compare.why_partial(row)]
        lost_at = {"5": figure2.losses(swept), f"{compare.TEST_SAMPLES:,}": figure2.losses(tested, "test_ll")}
        for dataset, likelihood, model in lost_at["5"]:
            for k, lost in lost_at.items():
                values = lost.get((dataset, likelihood, model), {})
                if any(values.values()):
                    lines.append([model, likelihood, dataset, sizes, k, *(
                        text.mean_of(values.get(part), sign="+" if part < 1 else "") for part in fractions)])
    return lines


def useful_rows(results_dir):
    """The rows of usefulness.csv at Table 2's sizes and settings."""
    rows = beyond.read(Path(results_dir) / "usefulness.csv")
    cells = [published.CELLS.get(tuple(row[field] for field in CELL)) for row in rows]
    return [row for row, cell in zip(rows, cells) if cell and row["changes"] == beyond.NOTHING
            and (row["hidden_units"], row["latent_dim"]) == (cell.hidden_units, cell.latent_dim)]


def usefulness(rows):
    """What models know besides density: a line for each task and setting, a column for each model."""
    models = [model for model in MODELS if any(row["model"] == model for row in rows)]
    lines = [["data, protocol", "task", "setting", *models]]
    groups = grouped(rows, "dataset", "likelihood", "protocol", "task", "setting")
    for *data, task, setting in sorted(groups, key=lambda key: (*key[:3], key[4] if isinstance(key[4], int) else 0)):
        scale, unit = (100, " %") if isinstance(setting, int) else (1, "")
        name = f"{setting:,} labels" if isinstance(setting, int) else setting + " half hidden" * (task == beyond.HALF)
        values = [[scale * row["value"] for row in groups[*data, task, setting] if row["model"] == model]
                  for model in models]
        lines.append([", ".join(data), task, name, *(text.mean_of(v, unit=unit) for v in values)])
    return lines


def bounds(rows):
    """log p(image) by the encoder's q and by a fitted one, and SPVAE's mean minus VAE's, for each training fraction."""
    settings = (beyond.AMORTISED, beyond.FITTED)
    columns = [(model, setting) for model in PAIRS[0] for setting in settings]
    lines = [["data, protocol", "training images", *map(", ".join, columns),
              *(f"SPVAE − VAE, {setting}" for setting in settings)]]
    groups = grouped([row for row in rows if row["task"] == beyond.IMAGE],
                     "dataset", "likelihood", "protocol", "train_fraction")
    for (*data, fraction), group in sorted(groups.items(), key=lambda item: (*item[0][:3], -item[0][3])):
        by_column = grouped(group, "model", "setting")
        values = [[row["value"] for row in by_column.get(column, ())] for column in columns]
        means = [text.mean_and_deviation(found)[0] if found else np.nan for found in values]
        lines.append([", ".join(data), text.per_cent(fraction), *map(text.mean_of, values),
                      *(text.number(spvae - vae, sign="+") for spvae, vae in zip(means[:2], means[2:]))])
    return lines
