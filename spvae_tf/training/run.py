"""A run: training, test, record; and the trained model again.

    <workdir>/                        config.json, checkpoint.npz, log.csv
    <results_dir>/<protocol>/
      runs/<name>/                    the workdir of a run that is to be recorded
      curves/<name>.csv               its log
      records/<name>.json             its record, once it is complete
      values/<name>.npz               of its test: log_prob [test images], k, seed
      weights/<name>.npz              the best weights on the validation set, numbered in the model's order
"""

import contextlib
import functools
import json
import math
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from spvae_tf import files, published
from spvae_tf.errors import InputError
from spvae_tf.model.region_graph import RegionGraph
from spvae_tf.spvae import build_model
from spvae_tf.training import checkpoint, configuration, provenance, records
from spvae_tf.training.data import dataset_name, fingerprint, has_whole_counts, load_dataset
from spvae_tf.training.evaluation import evaluate
from spvae_tf.training.trainer import LOG_FIELDS, CompiledCache, NonFiniteError, Trainer

CONFIG = "config.json"


def make_model(config, image_shape):
    """The untrained model of a configuration, for images of (height, width) pixels."""
    return build_model(config.model, image_shape, config.likelihood, config.hidden_units, config.latent_dim,
                       delta=config.delta, graph=RegionGraph.from_json(config.graph) if config.graph else None,
                       num_sums=config.num_sums, num_components=config.num_components, seed=config.seed,
                       whole_counts=has_whole_counts(config.dataset, config.round_pixels, config.preparation),
                       num_categories=config.num_categories, allow_large_graph=config.allow_large_graph)


def load_data(config):
    """The data set of a configuration; raises InputError when it cannot be read or prepared as it was."""
    if config.preparation == configuration.EARLIER:
        raise InputError("the run was trained on images prepared the old way, which is gone; train it again, or use "
                         "the commit that its config.json names")
    return load_dataset(config.dataset, config.likelihood, data_dir=config.data_dir, seed=config.data_seed,
                        train_fraction=config.train_fraction, round_pixels=config.round_pixels,
                        preparation=config.preparation)


class Run:
    """One run: its configuration, resolved, its folder, None for weights alone, its model, and its data."""

    def __init__(self, config, workdir, dataset=None):
        self.config, self.workdir = configuration.resolve(config), workdir and Path(files.expand(workdir))
        self._trained_on = None
        if dataset is not None:
            self.dataset = dataset

    @classmethod
    def open(cls, workdir, data_dir=None):
        """The run that has begun in a folder, perhaps with another `data_dir`; raises InputError if there is none."""
        found = _read_config(files.expand(workdir))
        changes = {} if data_dir is None else dict(data_dir=data_dir)
        run = cls(configuration.recorded_config(found, **changes), workdir)
        run._trained_on = found.get("dataset_sha256")
        return run

    @classmethod
    def in_results(cls, config, results_dir, dataset=None):
        """The run of a configuration in a folder of results, begun or not."""
        config = configuration.resolve(config)
        return cls(config, Path(results_dir) / config.protocol / "runs" / config.name, dataset)

    @functools.cached_property
    def dataset(self):
        """data.Dataset; raises InputError when it cannot be read, or is not what the run was trained on."""
        found = fingerprint(self.config.dataset)
        if self._trained_on and found and found != self._trained_on:
            raise InputError(f"{self.config.dataset} has changed since the run was trained: its dataset_sha256 is "
                             f"{found!r}, not {self._trained_on!r}")
        return load_data(self.config)

    @functools.cached_property
    def model(self):
        """SPVAE with the weights that were best on the validation set; raises InputError as `load`."""
        model = make_model(self.config, tuple(self.began()["image_shape"]))
        path = self.workdir / checkpoint.CHECKPOINT
        arrays, state = checkpoint.restore(path)
        if not state.get("best_step"):
            raise InputError(f"the run in {self.workdir} failed before its first validation; it holds no trained model")
        checkpoint.assign(model.trainable_variables, arrays["best"], path)
        return model

    def began(self):
        """What the run began with: `image_shape`, `num_train`, `device` (all in turn), `versions`, `commit`."""
        return {key: value for key, value in _read_config(self.workdir).items() if key not in self.config}

    def train(self, on_validation=None):
        """Trains the model, from its checkpoint if there is one; `on_validation` gets each row of the log.

        Returns the Trainer. Raises InputError when the folder is another run's or process's, or else NonFiniteError.
        """
        with self._trainer() as trainer:
            trainer.run(on_validation)
        self.model = trainer.model
        return trainer

    @contextlib.contextmanager
    def _trainer(self, cache=None):
        """Its Trainer; the folder is locked meanwhile."""
        model = make_model(self.config, self.dataset.image_shape)  # before there is a folder: a wrong size leaves none
        compiled = (cache or CompiledCache()).get(model, self.config.learning_rate)
        with files.lock(self.workdir):
            self._write_config()
            yield Trainer(compiled, self.dataset, self.config, self.workdir)

    def _write_config(self):
        """Writes config.json, what the run begins with; raises InputError when another run has begun in the folder."""
        wanted = configuration.settings_of(self.config) | dict(
            image_shape=list(self.dataset.image_shape), num_train=len(self.dataset.train))
        begun = (self.workdir / checkpoint.CHECKPOINT).exists()
        here = provenance.here()
        if (self.workdir / CONFIG).exists():
            found = _read_config(self.workdir)
            may_change = configuration.MAY_CHANGE
            if wanted.get("dataset_sha256", "") == found.get("dataset_sha256"):
                may_change += ("dataset",)  # the same images, wherever their file lies now
            _check_same(found, wanted, may_change, f"{self.workdir} holds a run",
                        "choose another --workdir or delete that folder")
            if begun:
                here = provenance.continued(found, here)
        elif begun:
            raise InputError(f"{self.workdir} holds a checkpoint, but no {CONFIG} that says of what run; choose "
                             "another --workdir or delete that folder")
        files.write_text(self.workdir / CONFIG, json.dumps(wanted | here, indent=1) + "\n")


def _check_same(found, wanted, may_change, what, remedy):
    """Raises InputError, naming a setting, unless what was found was made with the settings wanted."""
    differing = [key for key in wanted if key not in may_change and found.get(key, wanted[key]) != wanted[key]]
    if differing:
        key = "protocol" if "protocol" in differing else differing[0]  # which changes others
        raise InputError(f"{what} with {key}={found.get(key)!r}, not {wanted[key]!r}; {remedy}")


def _read_config(workdir):
    """config.json as a dict; settings added after the run was made take their defaults."""
    path = Path(workdir) / CONFIG
    try:
        config = configuration.with_defaults(json.loads(path.read_text(encoding="utf-8")))
        if missing := {"image_shape", "num_train"} - set(config):
            raise ValueError(f"no {', '.join(sorted(missing))}")
        configuration.recorded_config(config)
        return config
    except FileNotFoundError as error:
        raise InputError(f"{workdir} holds no run: there is no {CONFIG} in it") from error
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"{path} is damaged ({error})") from error


def load(workdir):
    """The trained SPVAE of the run in a folder, with the weights that were best on the validation set.

    Raises InputError when the folder holds no run, a damaged one, or one that failed before its first validation.
    """
    return Run.open(workdir).model


def tensorboard_writer(workdir):
    """A function that writes each row of the log as TensorBoard scalars into `<workdir>/tensorboard`."""
    # made at the first row: a run that raises InputError leaves no folder behind
    # bytes: a path need not be UTF-8
    writer = functools.cache(lambda: tf.summary.create_file_writer(os.fsencode(Path(workdir) / "tensorboard")))

    def write(row):
        with writer().as_default(step=row["batch"]):
            tf.summary.scalar("ELBO/train", row["train_ll"])
            tf.summary.scalar("ELBO/validation", row["val_ll"])
        writer().flush()
    return write


def finished(config, results_dir):
    """The record of a run, None if there is none; raises InputError when it was made with other settings."""
    folder = Path(results_dir) / config.protocol
    record = records.read_record(folder, config.name)
    found = configuration.with_defaults(record["config"]) if record else {}
    if found.get("preparation") != config.preparation:
        return None  # there is none, or it was made from images prepared the old way and will be replaced
    _check_same(found, configuration.as_recorded(config),
                ("test_samples", "num_test_images") if record["test_ll"] is None else (),  # not tested yet
                f"{folder} holds {config.name}", "choose another --results_dir or delete the record")
    return record


def complete(config, results_dir, dataset=None, test=True, cache=None):
    """Trains and tests one model and writes its record, unless the record is there already; returns the record.

    Without `test` it is tested at k = 5 alone; a later call with it goes on from the checkpoint. At a NaN or infinity
    the validation ELBO is NaN without `test`, so that nothing selects the run; with it, NonFiniteError is raised.
    Runs of equal sizes that have a `cache`, a CompiledCache, share one model: training the next overwrites this one's.
    """
    run = Run.in_results(config, results_dir, dataset)
    record = finished(run.config, results_dir)
    if record and (record["test_ll"] is not None or not test):
        return record
    num_images, images = run.config.num_test_images, run.dataset.test
    if num_images and num_images > len(images):
        raise InputError(f"num_test_images is {num_images}; the test set has {len(images)}")
    full = None
    with run._trainer(cache) as trainer:
        try:
            trainer.run()
            quick = evaluate(trainer.model, images, 5)
            elbos = dict(val_ll_k5=round(trainer.best_ll, 3), test_ll_k5=round(quick.mean, 3))
        except NonFiniteError:
            if test:
                raise
            elbos = dict(val_ll_k5=math.nan)
        if test:
            full = evaluate(trainer.model, images[:num_images], run.config.test_samples, folder=run.workdir)
            elbos |= dict(test_ll=round(full.mean, 3), test_ll_stderr=round(full.stderr, 3),
                          num_samples=full.num_samples, num_test_images=len(full.log_prob))
        return _write_results(run, Path(results_dir) / run.config.protocol, trainer, elbos, full)


def _write_results(run, folder, trainer, elbos, test):
    """Writes the learning curve and the record, and of a `test` the values and the weights; returns the record."""
    config, name = run.config, run.config.name
    if test:
        values = dict(log_prob=np.float32(test.log_prob), k=test.num_samples, seed=0)
        weights = {f"{n:03d}": np.float32(v.numpy()) for n, v in enumerate(trainer.model.trainable_variables)}
        files.write_npz(folder / "values" / f"{name}.npz", **values)
        files.write_npz(folder / "weights" / f"{name}.npz", **weights)
    files.write_table(folder / "curves" / f"{name}.csv", trainer.history, LOG_FIELDS)
    cell = published.cell(config.model, config.dataset, config.likelihood)
    untested = dict.fromkeys(records.TEST_FIELDS)  # num_test_images is a setting, too
    known = config.to_dict() | untested | run.began() | elbos | dict(
        dataset=dataset_name(config.dataset), params=trainer.model.count_params(), batches=trainer.step,
        best_batch=trainer.best_step, train_seconds=round(trainer.seconds, 1),
        paper_test_ll=cell.test_ll if cell else None)
    record = {key: known.get(key) for key in (*records.FIELDS, "image_shape")} | {
        "config": configuration.as_recorded(config)}
    records.write_record(folder, name, record)
    return record
