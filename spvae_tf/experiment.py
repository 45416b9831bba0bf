"""A run of the paper's experiment: configuration, training, evaluation, record."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

import keras
import ml_collections
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from spvae_tf import checkpoint, paper, results
from spvae_tf.data import DATASETS, load_dataset
from spvae_tf.errors import InputError
from spvae_tf.likelihoods import get_likelihood
from spvae_tf.model import MODELS, build_model, canonical_name
from spvae_tf.region_graph import RegionGraph
from spvae_tf.training import Trainer

# What the text says, and what the code that made the tables does. `patience` is the number of validations in a row
# without a new best that ends a run; `stream` is a function of training.py.
PROTOCOLS = {
    "paper": dict(learning_rate={True: 0.001, False: 0.001}, patience=5, stream="epochs"),
    "released": dict(learning_rate={True: 0.01, False: 0.001}, patience=11, stream="restarted"),
}
STREAMS = ("epochs", "restarted")


def make_config(model="SPVAE", dataset="mnist", likelihood="continuous", cell_of=None):
    """The configuration of one cell of Table 1, with Table 2's hyper-parameters.

    Args:
      model: one of MODELS, in any capitals.
      dataset: one of data.DATASETS or the path of an .npz.
      likelihood: "continuous" or "discrete".
      cell_of: of an .npz, the data set of paper.DATASETS whose sizes and rounding it takes; None is MNIST's.

    Returns:
      ml_collections.ConfigDict; what is a placeholder follows from the protocol or the data (`resolve`).

    Raises:
      InputError: for a name that does not exist, or cell_of beside a data set that has cells of its own.
    """
    model = canonical_name(model)
    get_likelihood(likelihood)
    check_dataset_name(dataset)
    if cell_of is not None and (cell_of not in paper.DATASETS or dataset in DATASETS):
        raise InputError(f"cell_of is {cell_of!r} for dataset {dataset!r}; it must be one of "
                         f"{', '.join(paper.DATASETS)}, for an .npz")
    cell = paper.cell(model, cell_of or dataset, likelihood) or paper.cell(model, "mnist", likelihood)
    optional = ml_collections.config_dict.placeholder
    config = ml_collections.ConfigDict(dict(
        model=model, dataset=dataset, likelihood=likelihood, protocol="paper", preset="single",
        hidden_units=cell.hidden_units, latent_dim=cell.latent_dim,
        delta=optional(int), graph=optional(str), num_sums=2, num_components=2,
        seed=0, data_seed=0, data_dir=optional(str), train_fraction=1.0, round_pixels=optional(bool),
        batch_size=128, train_samples=5, validate_every=128, max_batches=optional(int),
        learning_rate=optional(float), patience=optional(int), stream=optional(str), shuffle_buffer=1000,
        test_samples=5000, num_test_images=optional(int)))
    if cell_of == "svhn_cropped":
        config.round_pixels = False  # as the authors leave SVHN's
    return config


def check_dataset_name(dataset):
    """Refuses what names no data set.

    Args:
      dataset: a name of data.DATASETS or the path of an .npz.

    Raises:
      InputError: for anything else.
    """
    if dataset not in DATASETS and not str(dataset).endswith(".npz"):
        raise InputError(f"dataset is {dataset!r}; it must be one of {', '.join(DATASETS)} or the path of an .npz")


def resolve(config):
    """Checks a configuration and fills in what its protocol decides.

    Args:
      config: of `make_config`, perhaps with fields set since.

    Returns:
      A copy without placeholders for learning_rate, patience and stream.

    Raises:
      InputError: for a value that is not allowed, naming the key.
    """
    config = config.copy_and_resolve_references()
    config.model = canonical_name(config.model)
    get_likelihood(config.likelihood)
    check_dataset_name(config.dataset)
    if config.protocol not in PROTOCOLS:
        raise InputError(f"protocol is {config.protocol!r}; it must be one of {', '.join(PROTOCOLS)}")
    for name, value in PROTOCOLS[config.protocol].items():
        if config[name] is None:
            config[name] = value[MODELS[config.model][0]] if isinstance(value, dict) else value
    if config.stream not in STREAMS:
        raise InputError(f"stream is {config.stream!r}; it must be one of {', '.join(STREAMS)}")
    for name in ("hidden_units", "latent_dim", "num_sums", "num_components", "batch_size", "train_samples",
                 "validate_every", "patience", "shuffle_buffer", "test_samples"):
        if config[name] < 1:
            raise InputError(f"{name} is {config[name]}; it must be at least 1")
    if config.graph is not None:
        if not MODELS[config.model][0] or config.delta is not None:
            raise InputError("graph is for SPVAE and Conv-SPVAE without delta, not for "
                             f"{config.model} with delta={config.delta}")
        if not config.graph.startswith("{"):  # a path; from here on the graph itself travels with the configuration
            config.graph = RegionGraph.load(config.graph).to_json()
    for name in ("delta", "max_batches", "num_test_images"):
        if config[name] is not None and config[name] < 1:
            raise InputError(f"{name} is {config[name]}; it must be at least 1")
    for name in ("seed", "data_seed"):
        if config[name] < 0:
            raise InputError(f"{name} is {config[name]}; it must not be negative")
    if not 0 < config.learning_rate < np.inf:
        raise InputError(f"learning_rate is {config.learning_rate}; it must be positive and finite")
    if not 0 < config.train_fraction <= 1:
        raise InputError(f"train_fraction is {config.train_fraction}; it must be above 0 and at most 1")
    return config


def make_model(config, image_shape):
    """The untrained model of a configuration.

    Args:
      config: configuration.
      image_shape: (height, width).

    Returns:
      SPVAE.
    """
    return build_model(config.model, image_shape, config.likelihood, config.hidden_units, config.latent_dim,
                       delta=config.delta, graph=RegionGraph.from_json(config.graph) if config.graph else None,
                       num_sums=config.num_sums, num_components=config.num_components, seed=config.seed)


def load_data(config):
    """The data set of a configuration.

    Args:
      config: configuration.

    Returns:
      data.Dataset.
    """
    return load_dataset(config.dataset, config.likelihood, data_dir=config.data_dir, seed=config.data_seed,
                        train_fraction=config.train_fraction, round_pixels=config.round_pixels)


def train(config, workdir, dataset=None, on_validation=None):
    """Trains one model; a run that was stopped goes on from its checkpoint.

    Args:
      config: configuration.
      workdir: folder for config.json, checkpoint.npz and log.csv.
      dataset: data.Dataset, when it is already loaded.
      on_validation: called with each row of the log.

    Returns:
      (the model with the best weights, the finished Trainer, the data set).

    Raises:
      InputError: for a wrong configuration, or a workdir that belongs to another one.
      NonFiniteError: at a NaN or infinity in training.
    """
    config = resolve(config)
    dataset = dataset or load_data(config)
    model = make_model(config, dataset.image_shape)
    _claim(workdir, config, dataset)
    trainer = Trainer(model, dataset, config, workdir)
    trainer.run(on_validation)
    return model, trainer, dataset


# What may change when a training run is continued; all else makes another run.
FREE = ("data_dir", "max_batches", "test_samples", "num_test_images", "preset")


def run_name(config):
    """A name for a run that tells it from every other: its cell, its preset, its sizes, its seed, and all else that
    was set besides.

    Args:
      config: resolved configuration.

    Returns:
      str, usable as a file name.
    """
    changed = [f"{key}={_short(value)}" for key, value in changes(config).items()]
    dataset = f"npz_{Path(config.dataset).stem}" if str(config.dataset).endswith(".npz") else config.dataset
    return "-".join([config.model, dataset, config.likelihood, config.preset, f"h{config.hidden_units}",
                     f"z{config.latent_dim}", *changed, f"seed{config.seed}"]).lower()


def changes(config):
    """What was set in a configuration besides its cell, its preset, its sizes and its seed.

    Args:
      config: resolved configuration.

    Returns:
      dict key -> value, without the keys that decide only how far a run is trained and tested.
    """
    plain = make_config(config.model, config.dataset, config.likelihood)
    plain.protocol = config.protocol
    named = ("model", "dataset", "likelihood", "protocol", "hidden_units", "latent_dim", "seed", *FREE)
    return {key: config[key] for key, value in resolve(plain).items() if key not in named and config[key] != value}


def _short(value):
    return hashlib.sha256(value.encode()).hexdigest()[:8] if str(value).startswith("{") else value


def finished(config, results_dir):
    """The record of a run, if it is there.

    Args:
      config: resolved configuration.
      results_dir: folder of results.

    Returns:
      dict or None.

    Raises:
      InputError: when the record was made with another configuration, as with another k; it is not overwritten.
    """
    folder, name, wanted = Path(results_dir) / config.protocol, run_name(config), _recorded(config)
    record = results.read_record(folder, name)
    if record is None:
        return None
    found = recorded_config(record).to_dict()
    for key in wanted:
        if key in ("test_samples", "num_test_images") and record["test_ll"] is None:
            continue  # not tested yet
        if found[key] != wanted[key]:
            raise InputError(f"{folder} holds {name} with {key}={found[key]!r}, not {wanted[key]!r}; "
                             "choose another --results_dir or delete the record")
    return record


def _recorded(config):
    """A configuration as records keep it, without the places of files on a machine."""
    kept = {key: value for key, value in config.items() if key != "data_dir"}
    return kept | {"dataset": Path(config.dataset).name}


def recorded_config(record):
    """The configuration of a record; a key younger than the record has its default.

    Args:
      record: dict with the key `config`.

    Returns:
      ml_collections.ConfigDict; of a user's own images it names the file, not the folder.
    """
    return ml_collections.ConfigDict(_recorded(make_config()) | record["config"])


def check_row(row, fields=results.FIELDS):
    """Refuses what is no row of a table of runs.

    Args:
      row: dict.
      fields: that it must have.

    Raises:
      InputError: naming the first field that is wrong.
    """
    for field in fields:
        kinds = (str,) if field in results.TEXT_FIELDS else (int, float)
        optional = field in row and row[field] is None and field in results.OPTIONAL_FIELDS
        if type(row.get(field)) not in kinds and not optional:
            raise InputError(f"{field} is {row.get(field)!r}")
    for field, allowed in (("model", results.MODEL_ORDER), ("protocol", PROTOCOLS)):
        if row[field] not in allowed:
            raise InputError(f"{field} is {row[field]!r}; it must be one of {', '.join(allowed)}")
    if row["test_ll"] is not None and None in (row[field] for field in results.TEST_FIELDS):
        raise InputError("only a part of the test is there")


def check_record(record):
    """Refuses a record that is no row, or whose configuration is none or another run's.

    Args:
      record: dict with the keys results.FIELDS and `config`.

    Raises:
      InputError: naming what is wrong.
    """
    check_row(record)
    resolve(recorded_config(record))
    for key in ("model", "likelihood", "protocol", "preset", "seed", "hidden_units", "latent_dim"):
        if record["config"].get(key, record[key]) != record[key]:
            raise InputError(f"{key} is {record[key]!r}, but {record['config'][key]!r} in config")


def read_rows(path, fields=results.FIELDS):
    """The rows of a table of runs, checked.

    Args:
      path: of the CSV.
      fields: that each must have.

    Returns:
      list of dicts; none before a first run has ended.

    Raises:
      InputError: when the table is damaged.
    """
    rows = results.read_table(path) if Path(path).exists() else []
    for row in rows:
        try:
            check_row(row, fields)
        except InputError as error:
            raise InputError(f"{path} is damaged ({error})") from error
    return rows


def _claim(workdir, config, dataset):
    """Writes the run's configuration and what it begins with, or refuses a folder in which another run has begun."""
    path = Path(workdir) / checkpoint.CONFIG
    wanted = config.to_dict() | {"image_shape": list(dataset.image_shape), "num_train": len(dataset.train)}
    begun_with = dict(device=device(), versions=versions(), commit=commit())
    if path.exists():
        found = _read_config(workdir)
        differing = [key for key in wanted if key not in FREE and found[key] != wanted[key]]
        if differing:
            key = "protocol" if "protocol" in differing else differing[0]
            raise InputError(f"{workdir} holds a run with {key}={found.get(key)!r}, not {wanted[key]!r}; "
                             "choose another --workdir or delete it")
        if (Path(workdir) / checkpoint.CHECKPOINT).exists():  # else it begins anew
            begun_with |= {key: found[key] for key in begun_with if key in found}
    checkpoint.write_text(path, json.dumps(wanted | begun_with, indent=1) + "\n")


def _read_config(workdir):
    path = Path(workdir) / checkpoint.CONFIG
    try:
        config = make_config().to_dict() | json.loads(path.read_text(encoding="utf-8"))
        missing = {"image_shape", "num_train"} - set(config)
        if missing:
            raise ValueError(f"no {', '.join(sorted(missing))}")
        return config
    except FileNotFoundError as error:
        raise InputError(f"{workdir} holds no run: there is no {checkpoint.CONFIG} in it") from error
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"{path} is damaged ({error})") from error


def load_config(workdir):
    """The configuration of the run in a folder, with `image_shape`, `num_train` and what it began with: `device`,
    `versions`, `commit`.

    Args:
      workdir: folder of a run.

    Returns:
      ml_collections.ConfigDict.

    Raises:
      InputError: when the folder holds no run or its configuration is damaged.
    """
    return ml_collections.ConfigDict(_read_config(workdir))


def load(workdir):
    """A trained model, ready to use, with the weights that were best on the validation set.

    Args:
      workdir: folder of a run.

    Returns:
      SPVAE.

    Raises:
      InputError: when the folder holds no run or a damaged one.
    """
    config = load_config(workdir)
    model = make_model(config, tuple(config.image_shape))
    path = Path(workdir) / checkpoint.CHECKPOINT
    arrays, _ = checkpoint.restore(path)
    checkpoint.assign(model.trainable_variables, arrays["best"], path)
    return model


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A test log-likelihood.

    Attributes:
      mean: over images, nats per image.
      stderr: standard error of that mean, over images.
      num_samples: k.
      num_images: how many.
      per_image: [num_images], nats.
    """

    mean: float
    stderr: float
    num_samples: int
    num_images: int
    per_image: np.ndarray


def evaluate(model, images, num_samples, seed=0, refinements=0):
    """The k-sample bound averaged over images (Table 1 with k = 5,000 on the test set).

    Args:
      model: SPVAE.
      images: [n, pixels].
      num_samples: k.
      seed: integer.
      refinements: steps that fit q(z | x) to each image first; Table 1 has none.

    Returns:
      Evaluation.
    """
    with tqdm(total=len(images), unit="image", desc=f"k={num_samples}", disable=None, leave=False) as bar:
        def progress(done, log_probs):
            bar.update(done - bar.n)
            bar.set_postfix(ELBO=f"{log_probs.mean():.1f}")

        values = model.estimate(images, num_samples, seed=seed, refinements=refinements,
                                progress=progress)[0].numpy().astype(np.float64)
    stderr = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return Evaluation(float(values.mean()), float(stderr), num_samples, len(values), values)


def run(config, results_dir, dataset=None, test=True, on_validation=None):
    """Trains and tests one model and writes its record, unless the record is there already.

    A run that was recorded untested is tested from its checkpoint when it is asked for with `test`.

    Args:
      config: configuration; `preset` names the table it is for.
      results_dir: folder of results; the record goes to `<results_dir>/<protocol>/records`.
      dataset: data.Dataset, when it is already loaded.
      test: whether to test with `config.test_samples`; k = 5 always is.
      on_validation: called with each row of the log.

    Returns:
      The record, a dict with the keys results.FIELDS and `config`; None in the fields of a test that was not made.

    Raises:
      InputError: for a wrong configuration, or a record of the same name made with another one.
      NonFiniteError: at a NaN or infinity in training.
    """
    config = resolve(config)
    record = finished(config, results_dir)
    if record and (record["test_ll"] is not None or not test):
        return record
    dataset = dataset or load_data(config)
    if config.num_test_images and config.num_test_images > len(dataset.test):
        raise InputError(f"num_test_images is {config.num_test_images}; the test set has {len(dataset.test)}")
    model, trainer, dataset = train(config, _workdir(config, results_dir), dataset, on_validation)
    quick = evaluate(model, dataset.test, 5)
    found = dict(params=model.count_params(), num_train=len(dataset.train), batches=trainer.step,
                 best_batch=trainer.best_step, train_seconds=round(trainer.seconds, 1),
                 val_ll_k5=round(trainer.best_ll, 3), test_ll_k5=round(quick.mean, 3))
    if test:
        full = evaluate(model, dataset.test[:config.num_test_images], config.test_samples)
        found |= dict(test_ll=round(full.mean, 3), test_ll_stderr=round(full.stderr, 3),
                      num_samples=full.num_samples, num_test_images=full.num_images)
    return _write(config, results_dir, found)


def record_divergence(config, results_dir):
    """Writes the record of a run that met a NaN or infinity: its validation ELBO is NaN, so that nothing selects it.

    Args:
      config: of the run that `run` raised NonFiniteError for.
      results_dir: folder of results.

    Returns:
      The record.
    """
    config = resolve(config)
    workdir = _workdir(config, results_dir)
    arrays, state = checkpoint.restore(workdir / checkpoint.CHECKPOINT)  # of the last good validation
    return _write(config, results_dir, dict(
        params=int(sum(a.size for a in arrays["best"])), num_train=load_config(workdir).num_train,
        batches=state["step"], best_batch=state["best_step"], train_seconds=round(state["seconds"], 1),
        val_ll_k5=float("nan")))


def _workdir(config, results_dir):
    return Path(results_dir) / config.protocol / "runs" / run_name(config)


def _write(config, results_dir, found):
    """Writes the record of a run, and its learning curve."""
    folder, name, workdir = Path(results_dir) / config.protocol, run_name(config), _workdir(config, results_dir)
    begun, dataset = load_config(workdir), config.dataset
    cell = paper.cell(config.model, dataset, config.likelihood)
    named = dict(
        model=config.model, dataset=dataset if dataset in DATASETS else Path(dataset).stem,
        likelihood=config.likelihood, protocol=config.protocol, preset=config.preset, seed=config.seed,
        hidden_units=config.hidden_units, latent_dim=config.latent_dim, paper_test_ll=cell.test_ll if cell else None,
        device=begun.device, versions=begun.versions, commit=begun.commit)
    record = {key: (named | found).get(key) for key in results.FIELDS} | {"config": _recorded(config)}
    log = (workdir / "log.csv").read_text(encoding="utf-8")
    checkpoint.write_text(folder / "curves" / f"{name}.csv", log)
    results.write_record(folder, name, record)
    return record


def tensorboard_writer(workdir):
    """A function that writes each row of the log as TensorBoard scalars into `<workdir>/tensorboard`.

    Args:
      workdir: folder of the run.

    Returns:
      Function of a row of the log.
    """
    writers = []  # made at the first row: a refused run leaves no folder behind

    def write(row):
        if not writers:
            writers.append(tf.summary.create_file_writer(str(Path(workdir) / "tensorboard")))
        writer, = writers
        with writer.as_default(step=row["batch"]):
            tf.summary.scalar("ELBO/train", row["train_ll"])
            tf.summary.scalar("ELBO/validation", row["val_ll"])
        writer.flush()
    return write


def device():
    """What the run is computed on: the GPU's name, or the processor's with its number of cores."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores"


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions():
    """The versions that can change a result."""
    return (f"python {platform.python_version()}; tensorflow {tf.__version__}; keras {keras.__version__}; "
            f"tensorflow-probability {importlib.metadata.version('tensorflow-probability')}; numpy {np.__version__}")


def commit():
    """The commit of the code, with a plus when its files were changed since; "unknown" outside a checkout."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/results")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
