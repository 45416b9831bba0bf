"""Figure 2: how the test ELBO falls when there are fewer training images (section 4.1)."""

from pathlib import Path

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.reproduction import cross_validation, table1, text, workers
from spvae_tf.training import configuration, records

# paper: in steps of 10 % from 100 % to 10 %, then exponentially to 0.5 % in three steps. released: the authors' code's.
FRACTIONS = {
    "paper": (0.005, 0.014, 0.037, *(n / 10 for n in range(1, 11))),
    "released": (*(n / 100 for n in range(1, 10)), *(n / 10 for n in range(1, 11))),
    "mini": (0.02, 0.14, 1.0),
}
CSV = "low_data_sweep.csv"
FIELDS = (*records.FIELDS, "train_fraction")


def parse_fractions(words):
    """The fractions that a flag asks for, ascending, each once: a key of FRACTIONS alone, or numbers in (0, 1]."""
    if len(words) == 1 and words[0] in FRACTIONS:
        return FRACTIONS[words[0]]
    try:
        fractions = sorted({float(word) for word in words})
    except ValueError:
        fractions = []
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):  # NaN neither
        raise InputError(f"the fractions are {', '.join(words)!r}; they must be numbers above 0 and at most 1, or one "
                         f"of {', '.join(FRACTIONS)}")
    return tuple(fractions)


def make_configs(fractions, *cells, **overrides):
    """table1.make_configs for each fraction, the smallest first; at fraction 1 they are Table 1's own runs."""
    configs = [config for fraction in fractions
               for config in table1.make_configs(*cells, train_fraction=fraction, **overrides)]
    return sorted(configs, key=lambda c: (c.train_fraction, c.dataset, c.likelihood))  # stable: models as in Table 1


def reproduce(configs, test_fractions, results_dir, num_workers=1):
    """Makes the missing runs, writes low_data_sweep.csv after each; returns 1 when a run failed, else 0.

    Every run is tested with k = 5, those at `test_fractions` and at 1 (of a grid the winners) with their k besides.
    Raises InputError when no fraction is below 1.
    """
    folder = Path(results_dir) / configs[0].protocol

    def write_tables():
        write(folder)
        table1.write(folder)

    if all(config.train_fraction == 1 for config in configs) and not records.read_rows(Path(folder) / CSV, FIELDS):
        raise InputError("the only fraction is 1; a sweep has smaller ones (runs on the whole training set alone are "
                         "reproduce_table1.py's)")
    write_tables()  # before hours of work: can the results be written?
    _, failures = cross_validation.make_runs(configs, lambda config: config.train_fraction in (1, *test_fractions),
                                             results_dir, num_workers, write_tables)
    return workers.report(failures)


def write(folder):
    """Makes low_data_sweep.csv anew from the records, Table 1's where the same model has smaller fractions."""
    def model_of(record):
        return tuple(record[key] for key in (*text.CELL, "preset"))

    with files.lock(folder, wait=True):  # or a record that another process adds meanwhile would be missing
        rows = _rows_of_all_fractions(folder)
        swept = {model_of(row) for row in rows if row["train_fraction"] < 1}
        files.write_table(Path(folder) / CSV, [row for row in rows if model_of(row) in swept], FIELDS)


def _rows_of_all_fractions(folder):
    rows, configs = {}, []
    for record in records.read_records(folder):
        config = configuration.recorded_config(record["config"])
        if set(configuration.changes(config)) <= {"train_fraction"}:  # no other experiment's
            theirs = record["paper_test_ll"] if config.train_fraction == 1 else None  # it is of the whole training set
            rows[config.name] = record | dict(train_fraction=config.train_fraction, paper_test_ll=theirs)
            configs.append(config)
    shown = [config for config in configs if config.preset != "grid"]
    for points in cross_validation.cross_validations(configs).values():
        there = {config.name: rows[config.name] for config in points}
        if winner := cross_validation.winner(cross_validation.points(points[0]), there):
            shown.append(winner)
    return [rows[config.name] for config in shown]


def read(folder, preset):
    """The rows of a preset in low_data_sweep.csv, dicts with the keys FIELDS; raises InputError without any."""
    rows = [row for row in records.read_rows(Path(folder) / CSV, FIELDS) if row["preset"] == preset]
    if not rows:
        raise InputError(f"{Path(folder) / CSV} holds no sweep of preset {preset!r}")
    return rows


def losses(rows, field="test_ll_k5"):
    """Dict (data set, likelihood, model) -> dict fraction -> rows with `lost`, nats against the same seed's at 1.

    The row at 1 is of the same preparation of the images; where the fraction is 1, `lost` is the ELBO.
    """
    def with_lost(of_model):
        sound = [row for row in of_model if row[field] is not None]  # else it diverged, or was not tested with its k
        whole = {(row["preparation"], row["seed"]): row[field] for row in sound if row["train_fraction"] == 1}
        return {fraction: [row | dict(lost=row[field] - (whole[key] if fraction < 1 else 0)) for row in some
                           if (key := (row["preparation"], row["seed"])) in whole]
                for (fraction,), some in text.grouped(sound, "train_fraction").items()}

    return {key: with_lost(of_model) for key, of_model in text.grouped(rows, "dataset", "likelihood", "model").items()}


def as_text(rows):
    """The summary of a sweep as text, a line for each model; `rows` of `read`."""
    fractions = sorted({row["train_fraction"] for row in rows}, reverse=True)
    lines = [["", *map(text.per_cent, fractions)]] + [[", ".join(key), *(
        text.mean_over(model.get(part, []), "lost", digits=0, sign="+" if part < 1 else "", runs=False)
        for part in fractions)] for key, model in losses(rows).items()]
    title = ("Test ELBO (k = 5) in nats per image on the whole training set, and the difference from it on a part; "
             "mean ± standard deviation over seeds")
    return f"{title}\n{text.aligned(lines, numbers=True)}"
