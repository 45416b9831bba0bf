"""The generated blocks of RESULTS.md and README.md: every number on them, recomputed from the CSVs that the runs left.

Tables are text.py's, `rows` those of a CSV, `compared` of compare.compare. Log-likelihoods are nats per image.
"""

import itertools
import math
import re
from pathlib import Path

import numpy as np

from spvae_tf import files, published
from spvae_tf.errors import InputError
from spvae_tf.reproduction import beyond, compare, figure2, paired, table1, text
from spvae_tf.reproduction.text import CELL, cell_name, grouped
from spvae_tf.spvae import MODELS
from spvae_tf.training import records

SEEDS = {"SPVAE": 3, "VAE": 3, "Conv-SPVAE": 1, "Conv-VAE": 1}  # that a cell is to be run with
WANTED = table1.PRESETS["tuned"].datasets  # whose cells are to be run
BITS = "bits per dimension (paper)"
BEST = 3  # sizes shown of those that the authors tried
SUBSET_COMMAND = (
    f"bash scripts/reproduce_table1.sh --preset=tuned --protocol=released --datasets=<path>/{compare.SUBSET}.npz "
    f"--cell_of=svhn_cropped --models=SPVAE,VAE --results_dir=results/{compare.SUBSET}")


def results_blocks(results_dir):
    """The blocks of RESULTS.md: dict name -> Markdown."""
    folder = Path(results_dir)
    useful, small, folders = useful_rows(folder), subset(folder), compare.folders(folder)
    tables = {"margins": margins(compare.compare_protocols(folder)), "the authors' choice": authors_choice(),
              "usefulness": usefulness([row for row in useful if row["train_fraction"] == 1]),
              "bounds": bounds(useful), "svhn subset": small,
              "table 2": table2(compare.compare_sizes(files.read_table(folder / "table2.csv")))}
    blocks = {"coverage": coverage(compare.read_protocols(folder)),
              "paired": text.markdown(paired.differences(folders), paired.NONE)}
    for protocol, rows in compare.read_protocols(folder).items():
        compared = compare.compare(rows)
        tables |= {f"table 1, {protocol}": beside_table1(compared), f"validation, {protocol}": at_k5(compared),
                   f"less data, {protocol}": less_data(folder / protocol), f"cost, {protocol}": cost(rows),
                   f"less data than the authors, {protocol}": beside_figure2(folder / protocol)}
        commands = commands_for_missing(rows, protocol, table1.recorded_costs(folders, protocol))
        blocks[f"not run, {protocol}"] = "\n".join(["```bash", *commands, "```"])
    blocks |= {name: text.markdown(lines) for name, lines in tables.items()}
    if len(small) == 1:
        blocks["svhn subset"] += f"\n\n```bash\n{SUBSET_COMMAND}\n```"
    return blocks


def comparison(folders, sizes):
    """What compare_to_paper.py prints; `folders` of compare.folders, `sizes` of compare.compare_sizes."""
    rows_of, parts = {protocol: compare.read(folder) for protocol, folder in folders.items()}, []
    for protocol, rows in rows_of.items():
        compared = compare.compare(rows)
        commands = commands_for_missing(rows, protocol, table1.recorded_costs(folders, protocol))
        parts += [
            f"Protocol {protocol}. Table 1: test ELBO, k = 5000, whole test set, nats per image; mean ± standard "
            "deviation over seeds (runs)", text.aligned(beside_table1(compared)),
            "The same runs at k = 5, beside the authors' own logs of the same sizes", text.aligned(at_k5(compared)),
            "Figure 2, k = 5: ours (runs); ours minus the authors', read off their plots (≈ between two points)",
            text.aligned(beside_figure2(folders[protocol])),
            "Missing on the authors' images; behind each command what training one such run took, without its test",
            "\n".join(commands)]
    if others := compare.without_a_cell([row for rows in rows_of.values() for row in rows]):
        parts.append(f"Not compared, since Table 1 has no such data: {', '.join(others)}")
    return "\n\n".join([*parts, "Table 2: parameters", text.aligned(table2(sizes)), coverage(rows_of)])


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
    return text.spread(row[field], row[f"{field}_std"], row["runs"]) + text.mark([row])


def beside_table1(compared):
    """Ours, the paper's, and how they differ, for the cells that were run."""
    def line(row):
        source = row["compared_with"]
        if source == compare.LOG:
            source += f": ours {_ours(row, 'test_ll_k5')}, theirs {row['logged_test_ll_k5']}"
        return [cell_name(row), row["sizes"], f"{row['hidden_units'] or 'various'}, {row['latent_dim'] or 'various'}",
                _ours(row, "test_ll"), str(row["paper_test_ll"]),
                _bits([row[field] for field in CELL], row["paper_test_ll"], row["test_ll"]),
                text.number(row["difference"], 1, "+"), text.number(row["difference_per_pixel"], 4, "+"),
                text.number(row["difference_percent"], 1, "+"), text.number(row["difference_margin_percent"], 0, "+"),
                source, row["verdict"] + (f" ({row['note']})" if row["note"] else "")]

    run = [row for row in compared if row["runs"]]
    lines = [["cell", "sizes", "H, n_z", "ours (runs)", "paper", BITS, "difference", "per pixel", "%", "% of margin",
              "from", "verdict"], *map(line, run)]
    return lines + _uniform(lines, run)


def _bits(key, paper, *ours):
    """Of a cell: bits per dimension of ours and, in brackets, the paper's; or that they are densities."""
    paper, *ours = (text.bits(dict(zip(CELL, key)), nats) for nats in (paper, *ours))
    return paper if paper == "density" else f"{', '.join(ours)} ({paper})"


def _uniform(lines, rows):
    """Lines for a table with a column BITS, on the uniform distribution over images such as those of rows."""
    return [[", ".join(key), *(f"8, which is {nats:.1f} nats" if head == BITS else "—" for head in lines[0][1:])]
            for key, nats in text.uniform_of(rows).items()]


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
            if row["sizes"] == "Table 2's" and row["verdict"] != "partial"}


def summary(compared):
    """Table 1 in short: the cells run as a whole at Table 2's sizes, under any protocol."""
    whole = {protocol: whole_cells(rows) for protocol, rows in compared.items()}
    lines = [["cell", "paper", *(head for name in compared for head in (f"ours, protocol {name} (runs)", "verdict")),
              BITS]]
    for key, cell in sorted(published.CELLS.items(), key=lambda item: published.BENCHMARKS.index(item[0][1:])):
        if any(key in cells for cells in whole.values()):
            shown = [(_ours(cells[key], "test_ll"), cells[key]["verdict"]) if key in cells else ("—", "—")
                     for cells in whole.values()]
            lines.append([", ".join(key), f"{cell.test_ll}{' (of other sizes)' if cell.checkpoint else ''}",
                          *(text for pair in shown for text in pair),
                          _bits(key, cell.test_ll, *(cells.get(key, {}).get("test_ll") for cells in whole.values()))])
    return lines + _uniform(lines, [row for cells in whole.values() for row in cells.values()])


def margins(compared):
    """By how much the model with an SPN beats the one without, at Table 2's sizes; in brackets the runs of either."""
    whole = {protocol: whole_cells(rows) for protocol, rows in compared.items()}
    lines = [["benchmark", "difference", "published", *(f"protocol {name}" for name in whole)]]
    for pair, benchmark in itertools.product(published.PAIRS, published.BENCHMARKS):
        keys = [(model, *benchmark) for model in pair]
        mark = " *" if any(published.CELLS[key].checkpoint for key in keys) else ""
        lines.append([", ".join(benchmark), " − ".join(pair), f"{published.margin(pair, *benchmark):+d}{mark}",
                      *(_margin(*map(cells.get, keys)) for cells in whole.values())])
    return lines


def _margin(one, other):
    if one is None or other is None or one["preparation"] != other["preparation"]:
        return "—"
    deviation = np.hypot(*np.array([one["test_ll_std"], other["test_ll_std"]], float))  # the variances add up
    return text.spread(one["test_ll"] - other["test_ll"], deviation, f"{one['runs']}, {other['runs']}",
                       sign="+") + text.mark([one])


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
        group = text.of_one_preparation(group)
        hours = {device: sum(row["train_seconds"] for row in runs) / 3600
                 for (device,), runs in sorted(grouped(group, "device").items())}
        means = [sum(row[field] for row in group) / len(group) for field in ("batches", "best_batch")]
        lines.append([", ".join(key), f"{hidden_units}, {latent_dim}", f"{len(group)}{text.mark(group)}",
                      *map("{:.0f}".format, means),
                      "; ".join(map("{:.2f}".format, hours.values())), "; ".join(hours)])
    return lines


def missing(rows):
    """What the authors' images lack: dict (preset, key of a cell) -> seeds to be run; `rows` of one protocol."""
    found, by_cell = {}, grouped([row for row in rows if row["preparation"] == "authors"], *CELL)
    for key, cell in published.CELLS.items():
        for preset, sizes in (("tuned", "Table 2's"), ("checkpoint", "the checkpoint's"))[:2 if cell.checkpoint else 1]:
            done = {row["seed"] for row in by_cell.get(key, ())
                    if compare.sizes_of(row, cell) == sizes and not compare.why_partial(row)}
            seeds = range(SEEDS[key[0]])
            if left := [seed for seed in seeds if seed not in done][:max(len(seeds) - len(done), 0)]:
                found[preset, key] = left
    return dict(sorted(found.items(), key=lambda item: (item[0][1][1] not in WANTED, item[0][0] != "tuned")))


def commands_for_missing(rows, protocol, costs):
    """The commands that run what is `missing`, with what runs like them took (`costs` of table1.recorded_costs)."""
    return [f"bash scripts/reproduce_table1.sh --preset={preset} --protocol={protocol} --datasets={dataset} "
            f"--models={model} --likelihoods={likelihood} --seeds={','.join(map(str, seeds))}  # {cost}"
            for (preset, (model, dataset, likelihood)), seeds in missing(rows).items()
            for cost in [table1.cost_of(table1.make_configs(preset, protocol, [model], [dataset], [likelihood], [0])[0],
                                        costs)]] or ["# every cell has been run"]


def coverage(rows_of):
    """How much of Table 1 has been run; `rows_of` of compare.read_protocols."""
    def cells(rows):
        return len(published.CELLS.keys() & {tuple(row[field] for field in CELL) for row in rows})

    wanted = len(rows_of) * sum(SEEDS[model] for model, dataset, _ in published.CELLS if dataset in WANTED)
    left = sum(len(seeds) for rows in rows_of.values() for (preset, key), seeds in missing(rows).items()
               if preset == "tuned" and key[1] in WANTED)
    return "\n".join([
        f"{wanted - left} of {wanted} runs are there on the authors' images: of {' and '.join(WANTED)}, three seeds of "
        "each cell of SPVAE and VAE, one of the convolutional models.",
        *(f"Protocol {protocol}: {cells(rows)} of {len(published.CELLS)} cells have a run, "
          f"{cells([row for row in rows if row['preparation'] == 'authors'])} on the authors' images."
          for protocol, rows in rows_of.items())])


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
            *(text.mean_over(used, field) for field in ("test_ll_k5", "test_ll")),
            *(text.number(curve.get(fraction)) for fraction in (0.05, 0.06)),
            f"partial ({partial})" if compare.why_partial(used[0]) else partial])
    return lines


def _whole_sweep(folder):
    """Figure 2's runs that early stopping ended, and their fractions, the largest first."""
    rows = [row for row in records.read_rows(folder / figure2.CSV, figure2.FIELDS)
            if row["dataset"] in published.DATASETS and not compare.cut_off(row)]
    return rows, sorted({row["train_fraction"] for row in rows}, reverse=True)


def beside_figure2(folder):
    """Figure 2 at k = 5, Table 2's sizes: ours, and ours minus the authors', read off plots (≈: between two)."""
    def entry(runs, curve, fraction):
        used = text.of_one_preparation(runs)
        if not used:
            return "—"
        ours, _ = text.mean_and_deviation([row["test_ll_k5"] for row in used])
        difference = ours - published.digitized_at(curve, fraction)
        between = "" if fraction in curve or math.isnan(difference) else " ≈"
        return f"{text.mean_over(used, 'test_ll_k5')}; {text.number(difference, sign='+')}{between}"

    rows, fractions = _whole_sweep(folder)
    lines = [["model", "likelihood", "data set", *map(text.per_cent, fractions)]]
    rows = [row for row in rows if row["preset"] == "tuned" and row["test_ll_k5"] is not None]
    for (dataset, likelihood, model), swept in grouped(rows, "dataset", "likelihood", "model").items():
        at, curve = grouped(swept, "train_fraction"), published.digitized_sweep().get((model, dataset, likelihood), {})
        lines.append([model, likelihood, dataset, *(entry(at.get((part,), []), curve, part) for part in fractions)])
    return lines


def less_data(folder):
    """Figure 2 as a table, of whole runs: on the whole training set, and what a part of it costs, paired by seed."""
    rows, fractions = _whole_sweep(folder)
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
                        text.mean_over(values.get(part, []), "lost", sign="+" if part < 1 else "")
                        for part in fractions)])
    return lines


def useful_rows(results_dir):
    """The rows of usefulness.csv at Table 2's sizes and settings, with their `preparation`."""
    preparations = {beyond.NOTHING: "authors", "preparation=earlier": "earlier"}  # the latter in old rows alone
    rows = beyond.read(Path(results_dir) / "usefulness.csv")
    cells = [published.CELLS.get(tuple(row[field] for field in CELL)) for row in rows]
    return [row | dict(preparation=preparations[row["changes"]]) for row, cell in zip(rows, cells)
            if cell and row["changes"] in preparations
            and (row["hidden_units"], row["latent_dim"]) == (cell.hidden_units, cell.latent_dim)]


def usefulness(rows):
    """What models know besides density: a line for each task and setting, a column for each model."""
    models = [model for model in MODELS if any(row["model"] == model for row in rows)]
    lines = [["data, protocol", "task", "setting", *models]]
    groups = grouped(rows, "dataset", "likelihood", "protocol", "task", "setting")
    for *data, task, setting in sorted(groups, key=lambda key: (*key[:3], key[4] if isinstance(key[4], int) else 0)):
        scale, unit = (100, " %") if isinstance(setting, int) else (1, "")
        name = f"{setting:,} labels" if isinstance(setting, int) else setting + " half hidden" * (task == beyond.HALF)
        values = [[row | dict(value=scale * row["value"]) for row in groups[*data, task, setting]
                   if row["model"] == model] for model in models]
        lines.append([", ".join(data), task, name, *(text.mean_over(rows, "value", unit=unit) for rows in values)])
    return lines


def _difference(one, other):
    """The mean of rows minus that of others, both `of_one_preparation`; "—" unless there are some of the same."""
    if not one or not other or one[0]["preparation"] != other[0]["preparation"]:
        return "—"
    first, second = (text.mean_and_deviation([row["value"] for row in rows])[0] for rows in (one, other))
    return text.number(first - second, sign="+") + text.mark(one)


def bounds(rows):
    """log p(image) by the encoder's q and by a fitted one, and SPVAE's mean minus VAE's, for each training fraction."""
    settings = (beyond.AMORTISED, beyond.FITTED)
    columns = [(model, setting) for model in published.PAIRS[0] for setting in settings]
    lines = [["data, protocol", "training images", *map(", ".join, columns),
              *(f"SPVAE − VAE, {setting}" for setting in settings)]]
    groups = grouped([row for row in rows if row["task"] == beyond.IMAGE],
                     "dataset", "likelihood", "protocol", "train_fraction")
    for (*data, fraction), group in sorted(groups.items(), key=lambda item: (*item[0][:3], -item[0][3])):
        by_column = grouped(group, "model", "setting")
        found = [text.of_one_preparation(by_column.get(column, [])) for column in columns]
        lines.append([", ".join(data), text.per_cent(fraction), *(text.mean_over(rows, "value") for rows in found),
                      *map(_difference, found[:2], found[2:])])
    return lines
