"""Cross-validation (section 4): the grids, the winner by validation, many runs on several processes, what they cost."""

import contextlib
import dataclasses
import gc
import itertools
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import keras
import ml_collections
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.ops.runtime import configure
from spvae_tf.training import checkpoint, configuration, data
from spvae_tf.training import records as results
from spvae_tf.training import run as experiment
from spvae_tf.training.trainer import Compiled, CompiledCache, NonFiniteError, Trainer


class Sizes(NamedTuple):
    """The hyper-parameters that are cross-validated, all combinations of them.

    Attributes:
      hidden_units: H of every layer of an MLP, or the units of a convolutional VAE's fully connected layer.
      latent_dims: n_z.
    """

    hidden_units: tuple
    latent_dims: tuple


_VAE_LATENT, _LEAF_LATENT = (1, 2, 5, 25, 50, 100, 150, 200), (1, 2, 5, 25, 50)
_PAPER = {
    "SPVAE": Sizes((8, 16, 32), _LEAF_LATENT),
    "VAE": Sizes((30, 100, 300, 600), _VAE_LATENT),
    "Conv-SPVAE": Sizes((8, 32, 64), _LEAF_LATENT),
    "Conv-VAE": Sizes((32, 64, 128), _VAE_LATENT),
}
# paper: section 4's. released: besides, the SPVAE sizes off that grid that stand behind entries of Tables 1 and 2.
GRIDS = {"paper": _PAPER, "released": _PAPER | {"SPVAE": Sizes((8, 16, 30, 32, 100), _LEAF_LATENT)}}


def points(config, grid="paper"):
    """The configurations of a cross-validation.

    Args:
      config: of one cell of Table 1, at any training fraction and seed.
      grid: a key of GRIDS.

    Returns:
      list of copies of the configuration, one for each point of its model's grid.

    Raises:
      InputError: for a grid that does not exist.
    """
    if grid not in GRIDS:
        raise InputError(f"grid is {grid!r}; it must be one of {', '.join(GRIDS)}")
    return [configuration.resolve(config, hidden_units=hidden_units, latent_dim=latent_dim)
            for hidden_units, latent_dim in itertools.product(*GRIDS[grid][config.model])]


def select(records):
    """The winner of a cross-validation: the best validation ELBO, and of equals the smallest model.

    Args:
      records: of all points; neither their test results nor a record with a NaN counts.

    Returns:
      One of them, or None where validation has no finite value.
    """
    sound = [r for r in records if r["val_ll_k5"] is not None and math.isfinite(r["val_ll_k5"])]
    return min(sound, key=lambda r: (-r["val_ll_k5"], r["params"], r["hidden_units"], r["latent_dim"]), default=None)


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """The points of one grid on one benchmark with one seed; each seed is a cross-validation of its own.

    Attributes:
      points: configurations that differ in their sizes alone.
    """

    points: list

    def __str__(self):
        return "{model}, {dataset}, {likelihood}, seed {seed}".format(**self.points[0])

    def is_over(self, records):
        """Whether every point is among the records, a dict from names of runs."""
        return all(config.name in records for config in self.points)

    def winner(self, records):
        """The configuration that `select` chooses, or None; for one that is over."""
        chosen = select([records[name := c.name] | {"name": name} for c in self.points])
        return next((c for c in self.points if chosen and c.name == chosen["name"]), None)


def cross_validations(configs):
    """Sorts the points of grids by what they have in common, but for how far they are trained and tested.

    Args:
      configs: resolved configurations; those of other presets than "grid" are left out.

    Returns:
      list of CrossValidation.
    """
    groups = {}
    for config in configs:
        if config.preset == "grid":
            free = ("hidden_units", "latent_dim", *configuration.MAY_CHANGE)
            common = tuple((key, value) for key, value in sorted(config.items()) if key not in free)
            groups.setdefault(common, []).append(config)
    return [CrossValidation(points) for points in groups.values()]


# --- many runs --------------------------------------------------------------------------------------------------------

class Task(NamedTuple):
    """One run to make.

    Attributes:
      config: resolved configuration.
      test: whether to test it with its k, or with k = 5 alone.
    """

    config: ml_collections.ConfigDict
    test: bool


class Failure(NamedTuple):
    """Why a run has no record, in one line."""

    reason: str


def outcomes(tasks, results_dir, workers, on_start):
    """Makes runs, side by side on several processes.

    Args:
      tasks: deque of Task, taken from the left; what is added to it meanwhile is done too.
      results_dir: folder of results.
      workers: processes, among which the machine's cores are divided; with 1 the runs are made in this one.
      on_start: called with each Task as it begins.

    Yields:
      (Task, its record or a Failure), as they end.
    """
    if workers > 1 and tasks:
        yield from _outcomes_of_workers(tasks, results_dir, min(workers, len(tasks)), on_start)
        return
    loaded, compiled = {}, CompiledCache()
    while tasks:
        task = tasks.popleft()
        on_start(task)
        yield task, _attempt(task, results_dir, loaded, compiled)


def _attempt(task, results_dir, loaded, compiled, on_validation=None):
    """The record of a run, or a Failure. `loaded` holds the last data set, CIFAR-10 takes 250 MB; `compiled` models."""
    config = task.config
    try:
        key = (config.dataset, config.likelihood, config.train_fraction, config.data_seed, config.round_pixels)
        if key not in loaded:
            loaded.clear()
            loaded[key] = experiment.load_data(config)
        try:
            return experiment.complete(config, results_dir, loaded[key], task.test, on_validation, compiled)
        except NonFiniteError:
            if task.test:
                raise
            return experiment.record_divergence(config, results_dir)
    except (InputError, NonFiniteError) as error:
        return Failure(str(error))
    except Exception as error:  # whatever it is, the other runs are still worth having
        traceback.print_exc()
        return Failure(f"{type(error).__name__}: {error}")
    finally:
        keras.backend.clear_session()
        gc.collect()


class _Worker(NamedTuple):
    process: multiprocessing.process.BaseProcess
    connection: multiprocessing.connection.Connection
    log: Path


def _outcomes_of_workers(tasks, results_dir, workers, on_start):
    folder = Path(results_dir) / tasks[0].config.protocol / "runs"
    idle = [_start_worker(n, workers, results_dir, folder / f"worker{n + 1}.log") for n in range(workers)]
    busy, news, ended = {}, {}, 0  # connection -> (worker, task), worker -> its last validation
    with tqdm(total=len(tasks), unit="run", disable=None, leave=False) as bar:
        while busy or (tasks and idle):
            while tasks and idle:
                worker, task = idle.pop(0), tasks.popleft()
                on_start(task)
                with contextlib.suppress(OSError):  # it died while idle, which shows below
                    worker.connection.send((task.config.to_dict(), task.test))
                busy[worker.connection] = worker, task
            for connection in multiprocessing.connection.wait(list(busy)):
                worker, task = busy[connection]
                try:
                    kind, content = connection.recv()
                except (EOFError, OSError):
                    outcome = _obituary(worker)
                else:
                    if kind == "validation":
                        news[worker.process.name] = "{batch}: {val_ll:.1f}".format(**content)
                        bar.set_postfix(news)
                        continue
                    outcome = Failure(*content) if kind == "failure" else content
                    idle.append(worker)
                del busy[connection]
                news.pop(worker.process.name, None)
                ended += 1
                yield task, outcome
                bar.total = ended + len(busy) + len(tasks)
                bar.update()
    for worker in idle:
        with contextlib.suppress(OSError):
            worker.connection.send(None)
        worker.process.join()
    while tasks:
        yield tasks.popleft(), Failure("no worker is left")


def _obituary(worker):
    worker.process.join()
    tqdm.write(f"{worker.process.name} died (exit code {worker.process.exitcode}); see {worker.log}", file=sys.stderr)
    return Failure(f"{worker.process.name} died (exit code {worker.process.exitcode})")


def _start_worker(number, workers, results_dir, log):
    ours, theirs = multiprocessing.Pipe()
    log.parent.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("spawn").Process(
        target=_work, args=(theirs, str(results_dir), str(log)), name=f"worker {number + 1}", daemon=True)
    with _share_of_cores(number, workers):
        process.start()
    theirs.close()
    return _Worker(process, ours, log)


@contextlib.contextmanager
def _share_of_cores(number, workers):
    """A process started in this block has its share of the cores, and TensorFlow there as many threads (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = sorted(os.sched_getaffinity(0))
    share = np.array_split(cores, workers)[number] if workers <= len(cores) else [cores[number % len(cores)]]
    os.sched_setaffinity(0, map(int, share))
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _work(connection, results_dir, log):
    """A worker's life: one run after the other, until there is no more or the parent is gone."""
    configure()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the parent's end this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(log, "a", encoding="utf-8") as file:  # bars of several workers would overwrite each other
        os.dup2(file.fileno(), 2)
        sys.stderr = file
        loaded, compiled = {}, CompiledCache()
        while (message := connection.recv()) is not None:
            config, test = message
            outcome = _attempt(Task(ml_collections.ConfigDict(config), test), results_dir, loaded, compiled,
                               lambda row: connection.send(("validation", row)))
            connection.send(("failure", tuple(outcome)) if isinstance(outcome, Failure) else ("record", outcome))
            file.flush()


def _end_with_parent():
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


# --- what they will cost ----------------------------------------------------------------------------------------------

ASSUMED_BATCHES = 10_000  # of a run that early stopping ends, where no record tells
MEASURED_BATCHES, MEASURED_IMAGES, REPEATS = 8, 400, 3


class Estimate(NamedTuple):
    """What is left of a run.

    Attributes:
      begun: batches that it has had already.
      batches: that it will have had; without max_batches early stopping has the last word.
      known_from: "limit", "records" (of the same model, data and settings) or "assumed".
      train_seconds: of the batches to come and their validations, and of compiling them, which of several runs of the
        same sizes only the first does.
      test_seconds: of the test with its k.
    """

    begun: int
    batches: float
    known_from: str
    train_seconds: float
    test_seconds: float


def estimate(configs, results_dir):
    """How long runs will take on this machine, from measured steps.

    Of each model, likelihood and image shape at most four sizes are measured: the least and greatest H with the least
    and greatest n_z. In between seconds are interpolated, linearly in H and in n_z.

    Args:
      configs: resolved configurations of one protocol.
      results_dir: folder of results, which is only read.

    Returns:
      (list of Estimate, one for each configuration; how many sizes were measured).
    """
    images, groups = {name: _images_of(config) for name, config in {c.dataset: c for c in configs}.items()}, {}
    for config in configs:
        groups.setdefault((config.model, config.likelihood, images[config.dataset][0]), []).append(config)
    corners = {}
    for key, group in groups.items():
        hidden, latent = ({c[name] for c in group} for name in ("hidden_units", "latent_dim"))
        for sizes in itertools.product({min(hidden), max(hidden)}, {min(latent), max(latent)}):
            corners.setdefault(key, {})[sizes] = configuration.resolve(
                group[0], hidden_units=sizes[0], latent_dim=sizes[1])
    count = sum(map(len, corners.values()))
    with tqdm(total=count, unit="size", desc="measuring", disable=None, leave=False) as bar:
        for key, measured in corners.items():
            for sizes, config in measured.items():
                measured[sizes] = measure(config, key[-1])
                bar.update()
    records = results.read_records(Path(results_dir) / configs[0].protocol)
    estimates = []
    for config in configs:
        shape, num_validation, num_test = images[config.dataset]
        compilation, batch, row = _interpolate(corners[config.model, config.likelihood, shape], config)
        batch += row * config.train_samples * num_validation / config.validate_every
        had, (batches, known_from) = _begun(config, results_dir), _expected_batches(config, records)
        estimates.append(Estimate(had, batches, known_from, compilation + max(batches - had, 0) * batch,
                                  row * config.test_samples * (config.num_test_images or num_test)))
    return estimates, count


def measure(config, image_shape):
    """Times the compiled training loop and the compiled validation of a model, on noise.

    Args:
      config: resolved configuration.
      image_shape: (height, width).

    Returns:
      (seconds of compiling both, of a training batch, of the bound of one image with one sample).
    """
    images = np.random.default_rng(0).random([MEASURED_IMAGES, math.prod(image_shape)], np.float32)
    noise = data.Dataset("noise", image_shape, images, images, images, None, None, None)
    compiled = Compiled(experiment.make_model(config, image_shape), config.learning_rate)
    trainer = Trainer(compiled, noise, config, workdir="")
    indices = trainer.stream(0, MEASURED_BATCHES)
    calls = lambda: trainer._block(indices, tf.constant(0)), lambda: trainer._validation(tf.constant(0))
    first, *later = [[_seconds(call) for call in calls] for _ in range(1 + REPEATS)]
    keras.backend.clear_session()
    batches, validation = np.median(later, axis=0)
    return sum(first), batches / MEASURED_BATCHES, validation / (MEASURED_IMAGES * config.train_samples)


def _seconds(call):
    started = time.perf_counter()
    call().numpy()
    return time.perf_counter() - started


def _interpolate(corners, config):
    """The seconds of `measure` at a configuration's sizes, from those at the corners (H, n_z)."""
    hidden, latent = (sorted(set(values)) for values in zip(*corners))
    return [np.interp(config.latent_dim, latent, [
        np.interp(config.hidden_units, hidden, [corners[h, z][n] for h in hidden]) for z in latent]) for n in range(3)]


def _images_of(config):
    """(image shape, validation images, test images)."""
    name = config.dataset
    if name in data.OFFICIAL_SIZES:  # known without loading them
        num_validation = 26_032 if name == "svhn_cropped" else 10_000
        return (28, 28) if name == "mnist" else (32, 32), num_validation, data.OFFICIAL_SIZES[name]["test"]
    loaded = experiment.load_data(config)
    return tuple(loaded.image_shape), len(loaded.validation), len(loaded.test)


def _begun(config, results_dir):
    folder = Path(results_dir) / config.protocol / "runs" / config.name
    if not (folder / checkpoint.CHECKPOINT).exists():  # it would begin anew
        return 0
    log = folder / "log.csv"
    rows = files.read_table(log) if log.exists() else []
    return rows[-1]["batch"] if rows else 0


def _expected_batches(config, records):
    if config.max_batches:
        return config.max_batches, "limit"
    found = [(record["batches"], configuration.recorded_config(record)) for record in records]
    known = [batches for batches, other in found if not other.max_batches and _kind(other) == _kind(config)]
    return (sum(known) / len(known), "records") if known else (ASSUMED_BATCHES, "assumed")


def _kind(config):
    """What runs have in common that differ in their sizes and their seed alone."""
    return config.model, Path(config.dataset).name, config.likelihood, configuration.changes(config)
