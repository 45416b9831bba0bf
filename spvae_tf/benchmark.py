"""Time and memory of training, validation, evaluation and inpainting, as ratios measured in one process and one run.

Contenders take turns, so that a machine that slows down slows all of them. Seconds mean nothing without their machine;
what is watched are the ratios: SPVAE to VAE, and the plain implementation (model/reference.py) to ours.
"""

import collections
import dataclasses
import itertools
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
from spvae_tf.training import configuration, provenance
from spvae_tf.training.data import load_dataset
from spvae_tf.training.run import make_model
from spvae_tf.training.trainer import Compiled, Trainer

TIMED = ("step", "validation", "evaluation", "inpainting", "plain")  # plain: a step of model/reference.py
KINDS = (*TIMED, "compile", "alone")  # alone: start and peak memory of a process of its own
COMPILATIONS = 3  # of "step" and "plain", with "compile"; without it, one
VALIDATED = 10_000  # images of a validation
EVALUATED = 100  # images of an evaluation
INPAINTED = 256  # images of an inpainting


def batches_per_call():
    """Training batches in one timed call; on a GPU all those of a training block, which is waited for only once."""
    return 128 if on_gpu() else 16


class Timing:
    """A contender: a call, the units that it does, and the seconds per unit of its calls so far."""

    def __init__(self, call, units=1):
        self.call, self.units, self.seconds = call, units, []

    def once(self):
        """Seconds of a call until the device is done, without copying results from it."""
        started = time.perf_counter()
        self.call()
        tf.test.experimental.sync_devices()
        return time.perf_counter() - started


def interleave(timings, repeats):
    """Times contenders in turn; each has been called once already."""
    for _ in range(repeats):
        for timing in timings:
            timing.seconds.append(timing.once() / timing.units)


def summary(seconds):
    """Median, smallest and largest of some seconds."""
    return dict(median=float(np.median(seconds)), min=min(seconds), max=max(seconds))


def make_trainer(name, likelihood, dataset, **changes):
    """A Trainer that is only timed: Table 2's sizes for MNIST, protocol `released`."""
    config = configuration.resolve(configuration.make_config(name, "mnist_sample", likelihood), protocol="released",
                                   **changes)
    return Trainer(Compiled(make_model(config, dataset.image_shape), config.learning_rate), dataset, config, workdir="")


def make_timings(name, likelihood, dataset, kinds):
    """dict kind -> Timing of a new model, for each of `kinds` that is one of TIMED and that the model has."""
    trainer = make_trainer(name, likelihood, dataset)
    model, few, num_samples = trainer.model, dataset.test[:EVALUATED], 5000 if on_gpu() else 200
    many = np.resize(dataset.test, [INPAINTED, dataset.test.shape[1]])
    observed = hide_half("right", INPAINTED, model.image_shape)
    timings = dict(
        step=step_timing(trainer, batches_per_call()),
        validation=Timing(lambda: trainer.validate(tf.constant(0))),
        evaluation=Timing(lambda: model.log_prob(few, num_samples, seed=0), len(few) * num_samples / 5000),
        inpainting=Timing(lambda: model.inpaint(many, observed, seed=0)))
    if "plain" in kinds and configuration.has_spn(name):
        timings["plain"] = plain_step_timing(trainer)
    return {kind: timing for kind, timing in timings.items() if kind in kinds}


def step_timing(trainer, batches):
    """A call of the compiled training loop, per batch."""
    indices, zero = trainer.stream(0, batches), tf.constant(0)
    return Timing(lambda: trainer.train_block(indices, zero), batches)


def plain_step_timing(trainer):
    """A training step of the plain implementation with the same optimiser, data and noise."""
    # imported here, since it needs TensorFlow Probability: a second that neither training nor `alone` may spend
    from spvae_tf.model.reference import PlainSPVAE
    plain = PlainSPVAE(trainer.model)
    variables = plain.trainable_variables
    optimizer = type(trainer.optimizer).from_config(trainer.optimizer.get_config())
    optimizer.build(variables)
    x, _, bits = trainer._batch(tf.constant(trainer.stream(0, 1)[0]), 0)
    seed = tf.Variable([0, 0])

    @tf.function
    def step():
        noise = tf.random.stateless_normal(bits.shape, seed)
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(plain.bound(x, noise))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss

    return Timing(step)


def _alone(name, likelihood, started):
    """Trains, validates and tests a model: `start`, see NOTES, and `peak_mib`, None where it is not known."""
    configure()
    dataset = load_dataset("mnist_sample", likelihood)
    timings = make_timings(name, likelihood, dataset, ("step", "validation", "evaluation"))
    timings["step"].once()
    start = time.time() - started
    timings["validation"].once()
    timings["evaluation"].once()
    status, peak = Path("/proc/self/status"), None  # getrusage would count the process that started this one
    if on_gpu():
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    elif status.exists():
        peak = int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return dict(start=start, peak_mib=peak)


def run(models, likelihoods, repeats, kinds):
    """Times "step" and some of KINDS; returns a report that JSON can hold; raises InputError for other kinds."""
    for kind in kinds:
        check_choice("kind", kind, KINDS)
    report = dict(provenance.here(), batches_per_call=batches_per_call(), repeats=repeats, cells=[])
    with tqdm(unit="stage", disable=None, leave=False) as bar:
        report["cells"] = _measure(models, likelihoods, repeats, {"step", *kinds}, bar)
    return report


def _measure(models, likelihoods, repeats, kinds, bar):
    """The cells of models and likelihoods; `bar` tells what is being done."""
    def stage(text):
        bar.set_description(text)
        bar.update()

    datasets = {likelihood: _like_mnist(load_dataset("mnist_sample", likelihood)) for likelihood in likelihoods}
    contenders, first = {}, collections.defaultdict(list)
    for number in range(COMPILATIONS if "compile" in kinds else 1):
        for key in itertools.product(models, likelihoods):
            timings = make_timings(*key, datasets[key[1]], kinds if number == 0 else kinds & {"step", "plain"})
            for kind, timing in timings.items():
                stage(f"compiling {kind} of {', '.join(key)}")
                first[key, kind].append(timing.once())
            contenders.setdefault(key, timings)
    for kind in TIMED:
        stage(f"timing {kind}")
        interleave([timings[kind] for timings in contenders.values() if kind in timings], repeats)

    cells = []
    for key, timings in sorted(contenders.items(), key=lambda item: likelihoods.index(item[0][1])):
        cell = {kind: summary(timing.seconds) for kind, timing in timings.items()}
        cell["compile"] = {  # what a first call takes longer than a later one
            kind: summary([seconds - cell[kind]["median"] * timing.units for seconds in first[key, kind]])
            for kind, timing in timings.items()}
        if "alone" in kinds:
            stage(f"{', '.join(key)} in a process of its own")
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                cell |= pool.submit(_alone, *key, time.time()).result()
        cells.append(dict(zip(("model", "likelihood"), key)) | dict(validation_images=VALIDATED) | cell)
    return cells


def _like_mnist(dataset):
    """A Dataset with as many validation images as MNIST's."""
    validation = np.resize(dataset.validation, [VALIDATED, dataset.validation.shape[1]])
    return dataclasses.replace(dataset, validation=validation)


SCALING = {"samples k": ("train_samples", (1, 2, 5, 10, 20)), "batch": ("batch_size", (32, 64, 128, 256, 512)),
           "super-pixel side Δ": ("delta", (4, 7, 14)), "experts per super-pixel": ("num_components", (1, 2, 4, 8))}


def scaling(repeats=3):
    """{title: [[value, median seconds], …]} of an SPVAE training step (continuous) as one setting of SCALING grows."""
    dataset, report = load_dataset("mnist_sample", "continuous"), {}
    for title, (key, values) in tqdm(SCALING.items(), desc="how a step grows", disable=None, leave=False):
        timings = [step_timing(make_trainer("SPVAE", "continuous", dataset, **{key: value}), batches=4)
                   for value in values]
        for timing in timings:
            timing.once()
        interleave(timings, repeats)
        report[title] = [[value, summary(timing.seconds)["median"]] for value, timing in zip(values, timings)]
    return report


NOTES = {
    "validation": f"{VALIDATED:,} images at k = 5, as a share of the 128 training batches before it",
    "inpainting": f"the right halves of {INPAINTED} images, posterior mean, k = 100",
    "start": "from the start of a process to the end of its first {batches_per_call} training steps; peak: of that "
             "process, validation and evaluation included, on a GPU of its memory"}


def format_report(report):
    """The report of `run` as text, ratios first."""
    cells = {(cell["likelihood"], cell["model"]): cell for cell in report["cells"]}
    head = f"{'':22}" + "".join(f"{title:>{width}}" for title, (width, _) in COLUMNS.items())
    rows = [f"{name + ', ' + likelihood:22}" + "".join(f"{_text(cell, column):>{width}}"
                                                       for width, column in COLUMNS.values())
            for (likelihood, name), cell in cells.items()]
    notes = [f"{kind}: {note.format(**report)}" for kind, note in NOTES.items()
             if any(kind in cell for cell in report["cells"])]
    return "\n".join([report["device"], report["versions"],
                      f"commit {report['commit']}; medians of {report['repeats']} rounds", "",
                      "ratios of training steps", *_ratios(cells), "", head, *rows, *notes])


def _ratios(cells):
    for likelihood in dict.fromkeys(likelihood for likelihood, _ in cells):
        for name, other in (("SPVAE", "VAE"), ("Conv-SPVAE", "Conv-VAE")):
            ours, theirs = cells.get((likelihood, name), {}), cells.get((likelihood, other))
            if ours and theirs:
                ratio = ours["step"]["median"] / theirs["step"]["median"]
                yield f"  {likelihood:10}  {name} / {other:8} {ratio:6.2f}"
            if "plain" in ours:
                step, compilation = (of["plain"]["median"] / of["step"]["median"] for of in (ours, ours["compile"]))
                yield f"  {likelihood:10}  plain / ours, {name}: step {step:.1f}, compilation {compilation:.1f}"
    for (likelihood, name), cell in cells.items():
        if likelihood != "discrete" and (binomial := cells.get(("discrete", name))):
            ratio = cell["step"]["median"] / binomial["step"]["median"]
            yield f"  {name:10}  {likelihood + ' / discrete':27} {ratio:6.2f}"


# title -> (width, text from a cell)
COLUMNS = {
    "step ms": (9, lambda c: f"{1e3 * c['step']['median']:.2f}"),
    "(min–max)": (17, lambda c: f"({1e3 * c['step']['min']:.2f}–{1e3 * c['step']['max']:.2f})"),
    "validation": (12, lambda c: f"{c['validation']['median'] / (128 * c['step']['median']):.0%}"),
    "compile s": (19, lambda c: "{median:.1f} ({min:.1f}–{max:.1f})".format(**c["compile"]["step"])),
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
