"""A run of the paper's experiment: training, evaluation, record."""

import dataclasses
import json
from pathlib import Path

import ml_collections
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from spvae_tf import files
from spvae_tf import published as paper
from spvae_tf.errors import InputError
from spvae_tf.model.region_graph import RegionGraph
from spvae_tf.spvae import build_model
from spvae_tf.training import checkpoint, configuration
from spvae_tf.training import provenance as environment
from spvae_tf.training import records as results
from spvae_tf.training.data import dataset_name, load_dataset
from spvae_tf.training.trainer import LOG_FIELDS, Compiled, NonFiniteError, Trainer

MODELS_KEPT = 4  # compiled; a sweep takes two models and two likelihoods in turn


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
      config: configuration; that of a run (`load_config`) knows what a user's own images were.

    Returns:
      data.Dataset.

    Raises:
      InputError: when the data cannot be read, or the file holds other images than those the run was trained on.
    """
    wanted, found = config.get("dataset_sha256"), configuration.content(config).get("dataset_sha256")
    if config.preparation != "authors":
        raise InputError("the run was trained on images prepared in an earlier way, which is gone; train it again, or "
                         f"use the commit that it names ({config.get('commit', 'unknown')})")
    if wanted and found and wanted != found:
        raise InputError(f"{config.dataset} has changed since the run was trained: its dataset_sha256 is {found!r}, "
                         f"not {wanted!r}")
    return load_dataset(config.dataset, config.likelihood, data_dir=config.data_dir, seed=config.data_seed,
                        train_fraction=config.train_fraction, round_pixels=config.round_pixels)


def train(config, workdir, dataset=None, on_validation=None, kept=None):
    """Trains one model; a run that was stopped goes on from its checkpoint.

    Args:
      config: configuration.
      workdir: folder for config.json, checkpoint.npz and log.csv.
      dataset: data.Dataset, when it is already loaded.
      on_validation: called with each row of the log.
      kept: dict that runs one after the other share, of what was compiled of their models. A run of the same sizes
        takes it over, and the model that the run before returned with it.

    Returns:
      (the model with the best weights, the finished Trainer, the data set).

    Raises:
      InputError: for a wrong configuration, or a workdir that belongs to another one or is another process's now.
      NonFiniteError: at a NaN or infinity in training.
    """
    config = configuration.resolve(config)
    dataset = dataset or load_data(config)
    compiled = _compiled(config, dataset.image_shape, kept)  # before there is a folder: a wrong size leaves none
    with files.lock(workdir):
        trainer = _train(config, workdir, dataset, compiled, on_validation)
    return trainer.model, trainer, dataset


def _train(config, workdir, dataset, compiled, on_validation):
    """The finished Trainer of a run whose folder is this process's."""
    _claim(workdir, config, dataset)
    trainer = Trainer(compiled, dataset, config, workdir)
    trainer.run(on_validation)
    return trainer


def _compiled(config, image_shape, kept):
    """training.Compiled of a configuration's model with its initial weights, from `kept` if it is there."""
    kept = {} if kept is None else kept
    model = make_model(config, image_shape)
    make = json.dumps(model.get_config() | {"name": None, "seed": None, "learning_rate": config.learning_rate})
    if make in kept:
        kept[make].restart(model)
    else:
        while len(kept) >= MODELS_KEPT:
            del kept[next(iter(kept))]
        kept[make] = Compiled(model, config.learning_rate)
    return kept[make]


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
    folder, name = Path(results_dir) / config.protocol, configuration.run_name(config)
    wanted = configuration.as_recorded(config)
    record = results.read_record(folder, name)
    if record is None:
        return None
    found = configuration.recorded_config(record).to_dict()
    if found["preparation"] != wanted["preparation"]:
        return None  # of the earlier images; this run's record will take its place
    for key in wanted:
        if key in ("test_samples", "num_test_images") and record["test_ll"] is None:
            continue  # not tested yet
        if found.get(key, wanted[key]) != wanted[key]:  # a record younger than a key has it not
            raise InputError(f"{folder} holds {name} with {key}={found[key]!r}, not {wanted[key]!r}; "
                             "choose another --results_dir or delete the record")
    return record


def _claim(workdir, config, dataset):
    """Writes the run's configuration and what it begins with, or refuses a folder in which another run has begun.

    Of a run that goes on elsewhere, `device` names all devices in turn; versions and commit are those it began with.
    """
    path = Path(workdir) / checkpoint.CONFIG
    wanted = config.to_dict() | configuration.content(config) | {
        "image_shape": list(dataset.image_shape), "num_train": len(dataset.train)}
    begun = (Path(workdir) / checkpoint.CHECKPOINT).exists()
    if begun and not path.exists():
        raise InputError(f"{workdir} holds a checkpoint, but no {checkpoint.CONFIG} that says of what run; choose "
                         "another --workdir or delete that folder")
    begun_with = dict(device=environment.device(), versions=environment.versions(), commit=environment.commit())
    if path.exists():
        found = _read_config(workdir)
        free = set(configuration.FREE)
        if wanted.get("dataset_sha256", "") == found.get("dataset_sha256"):
            free.add("dataset")  # the same images, wherever their file lies now
        differing = [key for key in wanted if key not in free and found.get(key, wanted[key]) != wanted[key]]
        if differing:
            key = "protocol" if "protocol" in differing else differing[0]
            raise InputError(f"{workdir} holds a run with {key}={found.get(key)!r}, not {wanted[key]!r}; "
                             "choose another --workdir or delete that folder")
        if begun:  # else it begins anew
            here = begun_with["device"]
            begun_with |= {key: found[key] for key in begun_with if key in found}
            if here not in begun_with["device"].split("; "):
                begun_with["device"] += f"; {here}"
    files.write_text(path, json.dumps(wanted | begun_with, indent=1) + "\n")


def _read_config(workdir):
    path = Path(workdir) / checkpoint.CONFIG
    try:
        config = (configuration.make_config().to_dict() | {"preparation": "earlier"}
                  | json.loads(path.read_text(encoding="utf-8")))
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
      InputError: when the folder holds no run, a damaged one, or one that failed before its first validation.
    """
    config = load_config(workdir)
    model = make_model(config, tuple(config.image_shape))
    path = Path(workdir) / checkpoint.CHECKPOINT
    arrays, state = checkpoint.restore(path)
    if not state.get("best_step"):
        raise InputError(f"the run in {workdir} failed before its first validation; it holds no trained model")
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

    @property
    def median(self):
        """Of the images, nats: half of them are more probable."""
        return float(np.median(self.per_image))

    @property
    def least_probable(self):
        """(which image, its nats, the mean of the others); on continuous data one can decide the mean."""
        image = int(self.per_image.argmin())
        return image, float(self.per_image[image]), float(np.delete(self.per_image, image).mean())


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

    Raises:
      NonFiniteError: when the bound of an image is NaN or infinite.
    """
    with tqdm(total=len(images), unit="image", desc=f"k={num_samples}", disable=None, leave=False) as bar:
        def progress(done, log_probs):
            bar.update(done - bar.n)
            bar.set_postfix(ELBO=f"{log_probs.mean():.1f}")

        values = model.estimate(images, num_samples, seed=seed, refinements=refinements,
                                progress=progress)[0].numpy().astype(np.float64)
    if not np.isfinite(values).all():
        image = int(np.flatnonzero(~np.isfinite(values))[0])
        raise NonFiniteError(f"the bound of test image {image} is {values[image]} (k = {num_samples})")
    stderr = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return Evaluation(float(values.mean()), float(stderr), num_samples, len(values), values)


def run(config, results_dir, dataset=None, test=True, on_validation=None, kept=None):
    """Trains and tests one model and writes its record, unless the record is there already.

    A run that was recorded untested is tested from its checkpoint when it is asked for with `test`.

    Args:
      config: configuration; `preset` names the table it is for.
      results_dir: folder of results; the record goes to `<results_dir>/<protocol>/records`.
      dataset: data.Dataset, when it is already loaded.
      test: whether to test with `config.test_samples`; k = 5 always is.
      on_validation: called with each row of the log.
      kept: as in `train`.

    Returns:
      The record, a dict with the keys results.FIELDS and `config`; None in the fields of a test that was not made.

    Raises:
      InputError: for a wrong configuration, or a record of the same name made with another one.
      NonFiniteError: at a NaN or infinity in training or in a test.
    """
    config = configuration.resolve(config)
    record = finished(config, results_dir)
    if record and (record["test_ll"] is not None or not test):
        return record
    dataset = dataset or load_data(config)
    if config.num_test_images and config.num_test_images > len(dataset.test):
        raise InputError(f"num_test_images is {config.num_test_images}; the test set has {len(dataset.test)}")
    compiled, workdir = _compiled(config, dataset.image_shape, kept), _workdir(config, results_dir)
    with files.lock(workdir):
        trainer = _train(config, workdir, dataset, compiled, on_validation)
        quick = evaluate(trainer.model, dataset.test, 5)
        found = dict(params=trainer.model.count_params(), num_train=len(dataset.train), batches=trainer.step,
                     best_batch=trainer.best_step, train_seconds=round(trainer.seconds, 1),
                     val_ll_k5=round(trainer.best_ll, 3), test_ll_k5=round(quick.mean, 3))
        if test:
            full = evaluate(trainer.model, dataset.test[:config.num_test_images], config.test_samples)
            found |= dict(test_ll=round(full.mean, 3), test_ll_stderr=round(full.stderr, 3),
                          num_samples=full.num_samples, num_test_images=full.num_images)
        return _write(config, results_dir, found, trainer.history)


def record_divergence(config, results_dir):
    """Writes the record of a run that met a NaN or infinity: its validation ELBO is NaN, so that nothing selects it.

    Args:
      config: of the run that `run` raised NonFiniteError for.
      results_dir: folder of results.

    Returns:
      The record.
    """
    config = configuration.resolve(config)
    workdir = _workdir(config, results_dir)
    arrays, state = checkpoint.restore(workdir / checkpoint.CHECKPOINT)  # of the last good validation
    return _write(config, results_dir, dict(
        params=int(sum(a.size for a in arrays["best"])), num_train=load_config(workdir).num_train,
        batches=state["step"], best_batch=state["best_step"], train_seconds=round(state["seconds"], 1),
        val_ll_k5=float("nan")), state["history"])


def _workdir(config, results_dir):
    return Path(results_dir) / config.protocol / "runs" / configuration.run_name(config)


def _write(config, results_dir, found, history):
    """Writes the record of a run, and its learning curve."""
    folder, workdir = Path(results_dir) / config.protocol, _workdir(config, results_dir)
    begun, dataset = load_config(workdir), config.dataset
    cell = paper.cell(config.model, dataset, config.likelihood)
    named = dict(
        model=config.model, dataset=dataset_name(dataset),
        likelihood=config.likelihood, protocol=config.protocol, preset=config.preset, seed=config.seed,
        hidden_units=config.hidden_units, latent_dim=config.latent_dim, paper_test_ll=cell.test_ll if cell else None,
        device=begun.device, versions=begun.versions, commit=begun.commit)
    record = {key: (named | found).get(key) for key in results.FIELDS} | {"config": configuration.as_recorded(config)}
    files.write_table(folder / "curves" / f"{workdir.name}.csv", history, LOG_FIELDS)
    results.write_record(folder, workdir.name, record)
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
