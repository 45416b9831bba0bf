"""Time and memory of training, validation, evaluation and inpainting, as ratios measured in one process and one run.

Contenders take turns, so that a machine that slows down slows all of them. Seconds mean nothing without their machine;
what is watched are the ratios: SPVAE to VAE, and the plain implementation (model/reference.py) to ours.
"""

import collections
import dataclasses
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from spvae_tf.errors import check_choice
from spvae_tf.ops.device import on_gpu
from spvae_tf.ops.runtime import configure
from spvae_tf.queries.masks import hide_half
from spvae_tf.spvae import MODELS
from spvae_tf.training import configuration, provenance
from spvae_tf.training.data import load_dataset
from spvae_tf.training.run import make_model
from spvae_tf.training.trainer import Compiled, Trainer

TIMED = ("step", "validation", "evaluation", "inpainting", "plain")
KINDS = (*TIMED, "compile", "alone")  # what is measured
COMPILED = ("step", "plain")  # kinds that "compile" compiles COMPILATIONS times, all others once
COMPILATIONS = 3
VALIDATED = 10_000  # images of a validation
EVALUATED = 100  # images of an evaluation
INPAINTED = 256  # images whose right half is filled in, k = 100


def batches_per_call():
    """Training batches in one timed call; on a GPU all those of a training block, which is waited for only once."""
    return 128 if on_gpu() else 16


class Timing:
    """Seconds of repeated calls of one contender, each divided by `units`."""

    def __init__(self, call, units=1):
        self.call, self.units, self.seconds = call, units, []

    def first(self):
        """Seconds of the first call, compilation included."""
        started = time.perf_counter()
        self.call()
        tf.test.experimental.sync_devices()
        return time.perf_counter() - started

    def once(self):
        """Times one call, until the device is done; copying results from it is no part of it."""
        self.seconds.append(self.first() / self.units)

    @property
    def median(self):
        """Median seconds per unit."""
        return float(np.median(self.seconds))


def interleave(timings, repeats):
    """Times contenders in turn; each has been called once already."""
    for _ in range(repeats):
        for timing in timings:
            timing.once()


def summary(seconds):
    """Median, smallest and largest of some seconds."""
    return dict(median=float(np.median(seconds)), min=min(seconds), max=max(seconds))


# --- contenders -------------------------------------------------------------------------------------------------------

def make_trainer(name, likelihood, dataset, **changes):
    """A Trainer that is only timed: Table 2's sizes for MNIST, protocol `released`."""
    config = configuration.resolve(configuration.make_config(name, "mnist_sample", likelihood), protocol="released",
                                   **changes)
    return Trainer(Compiled(make_model(config, dataset.image_shape), config.learning_rate), dataset, config, workdir="")


def make_timings(name, likelihood, dataset, kinds):
    """dict kind -> Timing of a new model, for each of `kinds` that is one of TIMED and that the model has."""
    trainer = make_trainer(name, likelihood, dataset)
    makers = dict(step=step_timing, validation=validation_timing, evaluation=evaluation_timing,
                  inpainting=inpainting_timing)
    if configuration.has_spn(name):
        makers["plain"] = plain_step_timing
    return {kind: makers[kind](trainer, dataset.test) for kind in TIMED if kind in kinds and kind in makers}


def step_timing(trainer, images=None, batches=None):
    """A call of the compiled training loop, per batch."""
    batches = batches or batches_per_call()
    indices, zero = trainer.stream(0, batches), tf.constant(0)
    return Timing(lambda: trainer.train_block(indices, zero), batches)


def validation_timing(trainer, images):
    """A validation of the whole validation set at k = 5."""
    return Timing(lambda: trainer.validate(tf.constant(0)))


def evaluation_timing(trainer, images):
    """The streamed bound of some images, per image of k = 5,000."""
    images, num_samples = images[:EVALUATED], 5000 if on_gpu() else 200
    return Timing(lambda: trainer.model.log_prob(images, num_samples, seed=0), len(images) * num_samples / 5000)


def inpainting_timing(trainer, images):
    """The posterior mean of the hidden right halves of INPAINTED images."""
    images = np.resize(images, [INPAINTED, images.shape[1]])
    observed = hide_half("right", INPAINTED, trainer.model.image_shape)
    return Timing(lambda: trainer.model.inpaint(images, observed, seed=0))


def plain_step_timing(trainer, images):
    """A training step of the plain implementation with the same optimiser, data and noise."""
    # imported here, since it needs TensorFlow Probability: a second that training does not spend, nor `alone` may count
    from spvae_tf.model.reference import PlainSPVAE
    plain = PlainSPVAE(trainer.model)
    optimizer = type(trainer.optimizer).from_config(trainer.optimizer.get_config())
    optimizer.build(plain.trainable_variables)
    x, _, bits = trainer._batch(tf.constant(trainer.stream(0, 1)[0]), 0)
    seed = tf.Variable([0, 0])

    @tf.function
    def step():
        noise = tf.random.stateless_normal(bits.shape, seed)
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(plain.bound(x, noise))
        variables = plain.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss

    return Timing(step)


def alone(name, likelihood):
    """Starts, trains, validates and evaluates one model in a process of its own.

    Returns:
      dict: `start`, seconds from the start of the process (imports included) to the end of its first call of training
      steps; `peak_mib`, the process's peak memory (on a GPU that of the card), None where it cannot be told.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_alone, name, likelihood, time.time()).result()


def _alone(name, likelihood, started):
    configure()
    timings = make_timings(name, likelihood, load_dataset("mnist_sample", likelihood),
                           ("step", "validation", "evaluation"))
    timings["step"].once()
    start = time.time() - started
    timings["validation"].once()
    timings["evaluation"].once()
    return dict(start=start, peak_mib=_peak_memory())


def _peak_memory():
    if on_gpu():
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        return None


# --- measuring --------------------------------------------------------------------------------------------------------

def run(models=tuple(MODELS), likelihoods=("continuous", "discrete"), repeats=5, kinds=KINDS):
    """Times everything, or some kinds of it.

    Args:
      models: names.
      likelihoods: names.
      repeats: rounds.
      kinds: of KINDS. "step" is always measured, "plain" is a step of the plain implementation, "compile" compiles
        steps COMPILATIONS times instead of once, "alone" start and peak memory of a process of its own.

    Returns:
      dict of results that JSON can hold: for each likelihood and model the seconds of what of `kinds` it has, and of
      tracing and compiling it.

    Raises:
      InputError: for a kind that does not exist.
    """
    for kind in kinds:
        check_choice("kind", kind, KINDS)
    kinds = {"step", *kinds}
    report = dict(provenance.here(), batches_per_call=batches_per_call(), repeats=repeats, cells=[])
    with tqdm(unit="stage", disable=None, leave=False) as bar:
        def stage(text):
            bar.set_description(text)
            bar.update()

        for likelihood in likelihoods:
            report["cells"] += _measure(models, likelihood, repeats, kinds, stage)
    return report


def _measure(models, likelihood, repeats, kinds, stage):
    """The cells of one likelihood; `stage(text)` is told what begins."""
    dataset = load_dataset("mnist_sample", likelihood)
    validation = np.resize(dataset.validation, [VALIDATED, dataset.validation.shape[1]])  # as many as MNIST has
    dataset = dataclasses.replace(dataset, validation=validation)
    contenders, first = {}, {name: collections.defaultdict(list) for name in models}
    for number in range(COMPILATIONS if "compile" in kinds else 1):
        for name in models:
            timings = make_timings(name, likelihood, dataset, kinds if number == 0 else kinds & set(COMPILED))
            for kind, timing in timings.items():
                stage(f"compiling {kind} of {name}, {likelihood}")
                first[name][kind].append(timing.first())
            contenders.setdefault(name, timings)
    for kind in TIMED:
        stage(f"timing {kind}, {likelihood}")
        interleave([timings[kind] for timings in contenders.values() if kind in timings], repeats)
    cells = []
    for name, timings in contenders.items():
        cells.append(dict(model=name, likelihood=likelihood, validation_images=VALIDATED) | _summarise(
            timings, first[name]))
        if "alone" in kinds:
            stage(f"{name} in a process of its own, {likelihood}")
            cells[-1] |= alone(name, likelihood)
    return cells


def _summarise(timings, first):
    """The seconds of each kind, and those of its first calls without the time that such a call takes later."""
    compilations = {kind: summary([seconds - timing.median * timing.units for seconds in first[kind]])
                    for kind, timing in timings.items()}
    return {kind: summary(timing.seconds) for kind, timing in timings.items()} | dict(compile=compilations)


SCALING = {
    "samples k": ("train_samples", (1, 2, 5, 10, 20)),
    "batch": ("batch_size", (32, 64, 128, 256, 512)),
    "super-pixel side Δ": ("delta", (4, 7, 14)),
    "experts per super-pixel": ("num_components", (1, 2, 4, 8)),
}


def scaling(repeats=3):
    """Seconds of an SPVAE training step (continuous, Table 2's size) as one setting grows and the others stay.

    Returns:
      dict title -> list of [value, median seconds].
    """
    dataset, report = load_dataset("mnist_sample", "continuous"), {}
    for title, (key, values) in tqdm(SCALING.items(), desc="how a step grows", disable=None, leave=False):
        timings = [step_timing(make_trainer("SPVAE", "continuous", dataset, **{key: value}), batches=4)
                   for value in values]
        for timing in timings:
            timing.first()
        interleave(timings, repeats)
        report[title] = [[value, timing.median] for value, timing in zip(values, timings)]
    return report


# --- text -------------------------------------------------------------------------------------------------------------

NOTES = {
    "validation": f"{VALIDATED:,} images at k = 5, as a share of the 128 training batches before it",
    "inpainting": f"the right halves of {INPAINTED} images, posterior mean, k = 100",
    "start": "from the start of a process to the end of its first {batches_per_call} training steps; peak: of that "
             "process, validation and evaluation included, on a GPU of its memory"}


def format_report(report):
    """The report of `run` as text, ratios first."""
    cells = {(c["likelihood"], c["model"]): c for c in report["cells"]}
    lines = [report["device"], report["versions"], f"commit {report['commit']}; medians of {report['repeats']} rounds",
             "", "ratios of training steps", *_ratios(cells), "",
             f"{'':22}" + "".join(f"{title:>{width}}" for title, (width, _) in COLUMNS.items())]
    for (likelihood, name), cell in cells.items():
        lines.append(f"{name + ', ' + likelihood:22}" + "".join(
            f"{_text(cell, column):>{width}}" for width, column in COLUMNS.values()))
    lines += [f"{kind}: {note.format(**report)}" for kind, note in NOTES.items()
              if any(kind in cell for cell in report["cells"])]
    return "\n".join(lines)


def _ratios(cells):
    pairs = (("SPVAE", "VAE"), ("Conv-SPVAE", "Conv-VAE"))
    for likelihood in dict.fromkeys(likelihood for likelihood, _ in cells):
        for one, other in pairs:
            if (likelihood, one) in cells and (likelihood, other) in cells:
                a, b = (cells[likelihood, name]["step"]["median"] for name in (one, other))
                yield f"  {likelihood:10}  {one} / {other:8} {a / b:6.2f}"
        for name, _ in pairs:
            cell = cells.get((likelihood, name), {})
            if "plain" in cell:
                compile_ratio = cell["compile"]["plain"]["median"] / cell["compile"]["step"]["median"]
                yield (f"  {likelihood:10}  plain / ours, {name}: step "
                       f"{cell['plain']['median'] / cell['step']['median']:.1f}, compilation {compile_ratio:.1f}")


def _seconds(summary):
    """The median of a `summary`, with the least and the most in brackets if there are several."""
    text = "{median:.1f} ({min:.1f}–{max:.1f})" if summary["min"] < summary["max"] else "{median:.1f}"
    return text.format(**summary)


# title -> (width, text from a cell)
COLUMNS = {
    "step ms": (9, lambda c: f"{1e3 * c['step']['median']:.2f}"),
    "(min–max)": (17, lambda c: f"({1e3 * c['step']['min']:.2f}–{1e3 * c['step']['max']:.2f})"),
    "validation": (12, lambda c: f"{c['validation']['median'] / (128 * c['step']['median']):.0%}"),
    "compile s": (19, lambda c: _seconds(c["compile"]["step"])),
    "start s": (9, lambda c: f"{c['start']:.1f}"),
    "k=5000 img/s": (14, lambda c: f"{1 / c['evaluation']['median']:.1f}"),
    "inpainting s": (14, lambda c: f"{c['inpainting']['median']:.2f}"),
    "peak MiB": (10, lambda c: f"{c['peak_mib']:.0f}"),
}


def _text(cell, column):
    try:
        return column(cell)
    except (KeyError, TypeError):  # not measured; no figure where memory cannot be told
        return "–"
