"""Records of finished runs.

A record is one JSON file, `<results_dir>/<protocol>/records/<name>.json`: a dict with the keys FIELDS, the run's
configuration as `config` and, but in old ones, `image_shape`. It is written once its run is complete; every CSV is made
anew from all records. Here `folder` is `<results_dir>/<protocol>`.
"""

import json
import math
import warnings
from pathlib import Path

from spvae_tf import files
from spvae_tf.errors import InputError, check_choice
from spvae_tf.spvae import MODELS
from spvae_tf.training import configuration

FIELDS = ("model", "dataset", "likelihood", "protocol", "preset", "seed", "hidden_units", "latent_dim", "params",
          "num_train", "batches", "best_batch", "train_seconds", "val_ll_k5", "test_ll_k5", "test_ll",
          "test_ll_stderr", "num_samples", "num_test_images", "paper_test_ll", "device", "versions", "commit")

TEST_FIELDS = ("test_ll_k5", "test_ll", "test_ll_stderr", "num_samples", "num_test_images")


def write_record(folder, name, record):
    """Writes the record of a run, atomically."""
    files.write_text(Path(folder) / "records" / f"{name}.json", json.dumps(record, indent=1) + "\n")


def read_record(folder, name):
    """The record of a run; None when it is missing, and with a warning when it is damaged."""
    path = Path(folder) / "records" / f"{name}.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        _check_record(record)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        warnings.warn(f"record {path} is damaged ({error}); its run will be repeated", stacklevel=2)
        return None
    return record


def read_records(folder):
    """All sound records in the order of the paper's tables, each with its run's `name` besides."""
    names = sorted(path.stem for path in (Path(folder) / "records").glob("*.json"))
    records = [record | {"name": name} for name in names if (record := read_record(folder, name))]
    return sorted(records, key=lambda r: (r["dataset"], r["likelihood"], list(MODELS).index(r["model"]),
                                          r["hidden_units"], r["latent_dim"], -r["num_train"], r["seed"]))


def _check_record(record):
    """Raises InputError unless the record is a row of FIELDS with the configuration of the same run."""
    if missing := {*FIELDS, "config"} - set(record):
        raise InputError(f"no {', '.join(sorted(missing))}")
    _check_row(record, FIELDS)
    configuration.recorded_config(record["config"])
    for key in ("model", "likelihood", "protocol", "preset", "seed", "hidden_units", "latent_dim"):
        if record["config"].get(key, record[key]) != record[key]:
            raise InputError(f"{key} is {record[key]!r}, but {record['config'][key]!r} in config")


def _check_row(row, fields):
    """Raises InputError, naming the field, unless the dict is a row of a table of runs with these fields."""
    for field in fields:
        kinds = (str,) if field in files.TEXT_COLUMNS else (int, float)
        kinds += (type(None),) if field in (*TEST_FIELDS, "paper_test_ll") else ()
        if field not in row or type(row[field]) not in kinds:
            raise InputError(f"{field} is {row.get(field)!r}")
    check_choice("model", row["model"], MODELS)
    check_choice("protocol", row["protocol"], configuration.PROTOCOLS)
    if row["test_ll"] is not None and None in (row[field] for field in TEST_FIELDS):
        raise InputError("only a part of the test is there")
    for field in ("test_ll_k5", "test_ll"):  # a validation may be NaN: the run diverged
        if row[field] is not None and not math.isfinite(row[field]):
            raise InputError(f"{field} is {row[field]}; it must be finite")


def read_rows(path, fields=FIELDS):
    """The rows of a table of runs, none before a first run has ended; raises InputError when it is damaged.

    Each has the `name` and the `preparation` (of its images) of its record besides: None and "earlier" without one.
    """
    rows = files.read_table(path) if Path(path).exists() else []
    recorded = {_as_text(record): record for record in read_records(Path(path).parent)} if rows else {}
    for row in rows:
        try:
            _check_row(row, fields)
        except InputError as error:
            raise InputError(f"{path} is damaged ({error})") from error
        record = recorded.get(_as_text(row), {"name": None, "config": {}})
        row |= dict(name=record["name"], preparation=configuration.with_defaults(record["config"])["preparation"])
    return rows


def _as_text(row):
    """What a row of any table of runs has in common with its record, and with no other's."""
    return tuple(str(row[field]) for field in FIELDS if field != "paper_test_ll")
