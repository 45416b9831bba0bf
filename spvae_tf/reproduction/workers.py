"""Runs side by side: each worker is a process with its share of the cores, which makes one run after the other."""

import collections
import concurrent.futures
import contextlib
import functools
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import keras
import ml_collections
import numpy as np
from tqdm import tqdm

from spvae_tf.errors import InputError
from spvae_tf.ops import runtime
from spvae_tf.training import provenance, run
from spvae_tf.training.trainer import CompiledCache, NonFiniteError


class Task(NamedTuple):
    """A run to make: its resolved configuration, and whether to test it with its k besides k = 5."""

    config: ml_collections.FrozenConfigDict
    test: bool


def already_there(tasks, results_dir):
    """The runs that need no more work, and those whose records cannot be used; returns as `make_missing`."""
    records, failures = {}, {}
    for config, test in tasks:
        try:
            record = run.finished(config, results_dir)
        except InputError as error:
            failures[config.name] = str(error)
        else:
            if record and (record["test_ll"] is not None or not test):
                records[config.name] = record
    return records, failures


def make_missing(tasks, results_dir, workers=1, on_record=lambda: None):
    """Makes the missing runs, `on_record` after each; returns dicts name -> record and name -> why it has none."""
    records, failures = already_there(tasks, results_dir)
    for name in records:
        print(f"{name}: already there")
    missing = [task for task in tasks if task.config.name not in records | failures]
    if missing:
        _say(f"on {provenance.device()}:")
    for task, outcome, seconds in outcomes(missing, results_dir, workers):
        name = task.config.name
        if isinstance(outcome, str):
            failures[name] = outcome
        else:
            records[name] = outcome
            on_record()
            _say(f"  {name}: {_summary(outcome)}, {seconds:.0f} s")
    return records, failures


def report(failures):
    """Prints a line on standard error for each failure; returns a script's exit status, 0 or 1."""
    for name, reason in failures.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    return int(bool(failures))


def _say(line):
    """Prints a line above progress bars, at once even into a file."""
    tqdm.write(line)
    sys.stdout.flush()


def _summary(record):
    if record["test_ll_k5"] is None:
        return f"diverged after {record['batches']} batches"
    test = "" if record["test_ll"] is None else "{test_ll:.1f} ± {test_ll_stderr:.1f} (k = {num_samples}), "
    return ("test ELBO " + test + "{test_ll_k5:.1f} (k = 5), validation {val_ll_k5:.1f}, {num_train} training images, "
            "{batches} batches").format(**record)


def outcomes(tasks, results_dir, workers):
    """Makes runs; yields (Task, its record or why it has none, seconds that it took), as they end."""
    if len(tasks) > 1 and workers > 1:
        yield from _side_by_side(tasks, results_dir, min(workers, len(tasks)))
        return
    maker = _Maker()
    for task in tasks:
        started = _announce(task, results_dir)
        yield task, maker.make(task, results_dir), time.monotonic() - started


def _announce(task, results_dir):
    """Prints that a run begins; returns the time."""
    _say(f"{task.config.name}: to be {'tested' if run.finished(task.config, results_dir) else 'run'}")
    return time.monotonic()


class _Maker:
    """Makes one run after the other, which share the data set loaded last and the compiled cache."""

    def __init__(self):
        self._loaded, self._cache = {}, CompiledCache()

    def make(self, task, results_dir):
        """The record of a run, or why it has none."""
        try:
            return run.complete(task.config, results_dir, self._data_of(task.config), task.test, self._cache)
        except (InputError, NonFiniteError) as error:
            return str(error)
        except Exception as error:  # whatever it is, the other runs are still worth having
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
        finally:
            keras.backend.clear_session()
            gc.collect()

    def _data_of(self, config):
        key = (config.dataset, config.likelihood, config.train_fraction, config.data_seed, config.round_pixels,
               config.preparation)
        if key not in self._loaded:
            self._loaded.clear()  # one at a time: CIFAR-10 takes 250 MB
            self._loaded[key] = run.load_data(config)
        return self._loaded[key]


def _side_by_side(tasks, results_dir, workers):
    for config in {task.config.dataset: task.config for task in tasks}.values():
        with contextlib.suppress(InputError):  # as each run will say
            run.load_data(config)  # TFDS downloads it now, and not in several processes
    folder = Path(results_dir) / tasks[0].config.protocol / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    others = set(multiprocessing.active_children())
    idle = [_Worker(cores, folder / f"worker{n + 1}.log") for n, cores in enumerate(_shares_of_cores(workers))]
    waiting, busy = collections.deque(tasks), {}
    try:
        with tqdm(total=len(tasks), unit="run", disable=None, leave=False) as bar:
            while waiting or busy:
                while waiting and idle:
                    worker, task = idle.pop(0), waiting.popleft()
                    future = worker.submit(task, results_dir)
                    busy[future] = worker, task, _announce(task, results_dir)
                for future in concurrent.futures.wait(busy, return_when=concurrent.futures.FIRST_COMPLETED).done:
                    worker, task, started = busy.pop(future)
                    idle.append(worker)
                    yield task, worker.outcome(future), time.monotonic() - started
                    bar.update()
    finally:  # after Ctrl-C too
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()


class _Worker:
    """A pool of one process, so that a process that is killed takes no other's run with it."""

    def __init__(self, cores, log):
        self._cores, self._log = cores, log
        self._new_pool()

    def _new_pool(self):
        self._pool = concurrent.futures.ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), _set_up_process, [str(self._log)])
        if self._cores:
            mine = os.sched_getaffinity(0)
            os.sched_setaffinity(0, self._cores)
            self._pool.submit(int)  # starts the process: it inherits the cores, and TensorFlow as many threads
            os.sched_setaffinity(0, mine)

    def submit(self, task, results_dir):
        """Begins a run; returns its Future."""
        try:
            return self._pool.submit(_make_here, task, results_dir)
        except BrokenProcessPool:  # its process was killed in the run before, or while it had none
            self._new_pool()
            return self._pool.submit(_make_here, task, results_dir)

    def outcome(self, future):
        """The record of a run that has ended, or why it has none."""
        try:
            return future.result()
        except BrokenProcessPool:
            return f"its process was killed, as it is when memory runs out; see {self._log}"


def _shares_of_cores(workers):
    """The cores of each worker, as equal in number as can be; None where a process cannot be bound to cores."""
    if not hasattr(os, "sched_setaffinity"):
        return [None] * workers
    cores = sorted(os.sched_getaffinity(0))
    return [share.tolist() or cores[:1] for share in np.array_split(cores, workers)]


def _set_up_process(log):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the parent this process
    runtime.end_softly()
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of all processes, which a process that is ended leaves
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(log, "a", encoding="utf-8") as file:  # several workers' bars would overwrite each other
        os.dup2(file.fileno(), sys.stderr.fileno())
    runtime.configure()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


_maker_here = functools.cache(_Maker)  # of a worker's process


def _make_here(task, results_dir):
    try:
        return _maker_here().make(task, results_dir)
    except KeyboardInterrupt:  # it is saved; to the parent this process was killed
        os._exit(1)
