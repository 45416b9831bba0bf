"""Time and memory of training, validation and evaluation, as ratios measured in one process and one run.

Contenders take turns, so that a machine that slows down slows all of them. Each is set against its own floor: the time
of its matrix products and convolutions, its transcendental functions and its noise, each alone, on tensors of the same
shapes, added up. What a step takes beyond its floor is what this code adds.
"""

import collections
import dataclasses
import functools
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from spvae_tf.errors import InputError
from spvae_tf.infer import read_mask
from spvae_tf.model import experts as vae
from spvae_tf.ops import small_conv as superpixels
from spvae_tf.ops.device import codes_at_once, on_gpu
from spvae_tf.ops.functions import softplus
from spvae_tf.ops.noise import random_bits, standard_normal
from spvae_tf.ops.runtime import configure
from spvae_tf.queries.density import EVALUATION_BATCH
from spvae_tf.spvae import MODELS
from spvae_tf.training import configuration
from spvae_tf.training import provenance as environment
from spvae_tf.training import run as experiment
from spvae_tf.training.data import load_dataset
from spvae_tf.training.trainer import Compiled, Trainer

TIMED = ("step", "validation", "evaluation", "inpainting", "plain")
KINDS = (*TIMED, "compile", "floors", "alone")  # what is measured
COMPILED = ("step", "plain")  # kinds of TIMED that "compile" compiles COMPILATIONS times, all others once
COMPILATIONS = 3
VALIDATED = 10_000  # images of a validation
INPAINTED = 256  # images whose right half is filled in, k = 100


def batches_per_call():
    """Training batches in one timed call; on a GPU all those of a training block, which is waited for only once."""
    return 128 if on_gpu() else 16


class Timing:
    """Seconds of repeated calls of one contender.

    Attributes:
      seconds: one entry for each repetition, each divided by `units`.
    """

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
        started = time.perf_counter()
        self.call()
        tf.test.experimental.sync_devices()
        self.seconds.append((time.perf_counter() - started) / self.units)

    @property
    def median(self):
        """Median seconds per unit."""
        return float(np.median(self.seconds))


def summary(seconds):
    """Median, smallest and largest of some seconds."""
    return dict(median=float(np.median(seconds)), min=min(seconds), max=max(seconds))


def interleave(timings, repeats):
    """Times contenders in turn.

    Args:
      timings: Timing objects; each has been called once already.
      repeats: rounds.
    """
    for _ in range(repeats):
        for timing in timings:
            timing.once()


# --- a process of its own ---------------------------------------------------------------------------------------------

def alone(name, likelihood):
    """Starts, trains, validates and evaluates one model in a process of its own.

    Args:
      name: of the model.
      likelihood: "continuous" or "discrete".

    Returns:
      dict: `start`, seconds from the start of the process (imports included) to the end of its first call of training
      steps; `peak_mib`, the process's peak memory (on a GPU that of the card), None where it cannot be told.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_alone, name, likelihood, time.time()).result()


def _alone(name, likelihood, started):
    configure()
    contender = _contender(name, likelihood, load_dataset("mnist_sample", likelihood))
    contender["step"].once()
    start = time.time() - started
    contender["validation"].once()
    contender["evaluation"].once()
    return dict(start=start, peak_mib=_peak_memory())


def _peak_memory():
    if on_gpu():
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        return None


# --- floors -----------------------------------------------------------------------------------------------------------

def _products(network, rows):
    """The products of an encoder or decoder, as it computes them.

    Args:
      network: encoder or decoder.
      rows: of its input.

    Yields:
      (function, random arguments, the layers it is of, whether softplus follows) of each.
    """
    if isinstance(network, (vae.DenseEncoder, vae.DenseDecoder)):
        surplus = 0
        for layer in network.heads.dense:
            arguments = [_features(layer, rows, surplus)]
            surplus = network.heads.surplus(layer)
            yield functools.partial(layer, surplus=surplus), arguments, [layer], layer is not network.heads.dense[-1]
        return
    if isinstance(network, vae.ConvEncoder):
        hidden, last = network.trunk, [network.mean, network.precision]
    else:
        hidden, last = [network.dense, network.deconv], network.heads
    if superpixels.is_written_out(hidden[1]):
        yield from _products_of_tiles(network, rows)
        return
    for layer in (*hidden, *last):
        yield layer, [_features(layer, rows)], [layer], layer in hidden


def _features(layer, rows, surplus=0):
    return tf.random.normal([layer.kernel.shape[0], rows, layer.num_inputs + surplus])


def _products_of_tiles(network, rows):
    """The same for super-pixels' convolutions and what is before and after them."""
    encodes = isinstance(network, vae.ConvEncoder)
    first, second = network.trunk[:2] if encodes else (network.dense, network.deconv)
    size, (channels_in, channels_out) = second.input_size, second.channels
    tiles = superpixels.tiles(size)
    windows = [superpixels.grown(tile, size) for tile in tiles]

    def images(rectangles, channels):
        samples = rows + -rows % superpixels.SAMPLES
        whole = tf.random.normal([second.kernel.shape[0], channels, *size, samples])
        return [whole[:, :, *rectangle] for rectangle in rectangles]

    if encodes:
        yield functools.partial(superpixels.from_rows, first), [_features(first, rows)], [first], True
    else:
        from_features = functools.partial(superpixels.from_features, first, size=size)
        yield from_features, [_features(first, rows)], [first], True
    yield (lambda *x: [superpixels.convolve(second, *part) for part in zip(x, windows, tiles)],
           images(windows, channels_in), [second], True)
    if encodes:
        yield (lambda *x: superpixels.to_features(network.trunk[2], list(zip(tiles, x)), size),
               images(tiles, channels_out), [network.trunk[2]], True)
        for layer in (network.mean, network.precision):
            yield layer, [_features(layer, rows)], [layer], False
    else:
        yield (lambda *x: superpixels.convolve_to_rows(network.heads, list(zip(tiles, x))),
               images(tiles, channels_out), network.heads, False)


def _gradient_call(function, *arguments, variables=()):
    @tf.function(jit_compile=True)
    def call():
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            value = function(*arguments)
        return tape.gradient(value, [*arguments, *variables])
    return call


def floor_timings(model, encoder_rows, decoder_rows, gradients):
    """What a pass through a model must at least compute, piece by piece.

    Args:
      model: SPVAE.
      encoder_rows: images.
      decoder_rows: images times samples.
      gradients: True for a training step, False for the bound alone; then the encoder does not count.

    Returns:
      dict piece -> list of Timing.
    """
    def timing(function, *arguments, variables=()):
        call = _gradient_call(function, *arguments, variables=variables) if gradients else \
            tf.function(lambda: function(*arguments), jit_compile=True)
        return Timing(call)

    pieces = {"matrix products": [], "transcendental functions": [], "noise": []}
    for network, rows in ((model.encoder, encoder_rows), (model.decoder, decoder_rows)):
        if not gradients and network is model.encoder:
            continue  # once per image, not once per sample
        for function, arguments, layers, is_hidden in _products(network, rows):
            variables = [variable for layer in layers for variable in layer.trainable_variables]
            pieces["matrix products"].append(timing(function, *arguments, variables=variables))
            if is_hidden:
                features = tf.concat([tf.reshape(x, [-1]) for x in tf.nest.flatten(function(*arguments))], 0)
                pieces["transcendental functions"].append(timing(softplus, features))
    pixels = model.leaf_pixels.shape[1]
    outputs = [tf.random.normal([model.num_experts, decoder_rows, pixels]) for _ in range(model.likelihood.num_outputs)]
    x = tf.random.uniform([model.num_experts, decoder_rows, pixels])
    pieces["transcendental functions"].append(timing(lambda *o: model.likelihood.log_density(x, o), *outputs))
    shape = [model.num_experts, decoder_rows, model.latent_dim]
    normal = tf.function(standard_normal, jit_compile=True)
    seed = tf.Variable([0, 0])
    pieces["noise"].append(Timing(tf.function(lambda: normal(random_bits(shape, seed)))))
    return pieces


def floor_of(pieces):
    """Median seconds of each piece of a floor, and their sum.

    Args:
      pieces: of `floor_timings`, timed.

    Returns:
      dict piece -> seconds, with "sum".
    """
    seconds = {name: sum(t.median for t in timings) for name, timings in pieces.items()}
    return seconds | {"sum": sum(seconds.values())}


# --- contenders -------------------------------------------------------------------------------------------------------

def _config(name, likelihood, **changes):
    config = configuration.make_config(name, "mnist_sample", likelihood)
    return configuration.resolve(config, protocol="released", **changes)


def make_trainer(config, dataset):
    """A Trainer that is only timed.

    Args:
      config: resolved configuration.
      dataset: data.Dataset.

    Returns:
      Trainer.
    """
    compiled = Compiled(experiment.make_model(config, dataset.image_shape), config.learning_rate)
    return Trainer(compiled, dataset, config, workdir="")


def step_timing(trainer, batches=None):
    """A call of the compiled training loop, per batch."""
    batches = batches or batches_per_call()
    indices, zero = trainer.stream(0, batches), tf.constant(0)
    return Timing(lambda: trainer.train_block(indices, zero), batches)


def plain_step_timing(trainer):
    """A training step of the plain implementation with the same optimiser, data and noise."""
    # here, since it needs TensorFlow Probability: a second that training does not spend and `alone` must not count
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


def evaluation_timing(model, images):
    """The streamed bound of a batch of images, per image of k = 5,000."""
    images, num_samples = images[:EVALUATION_BATCH], 5000 if on_gpu() else 200
    return Timing(lambda: model.log_prob(images, num_samples, seed=0), len(images) * num_samples / 5000)


def inpainting_timing(model, images):
    """The posterior mean of the hidden right halves of INPAINTED images."""
    images = np.resize(images, [INPAINTED, images.shape[1]])
    observed = read_mask("right", INPAINTED, model.image_shape)
    return Timing(lambda: model.inpaint(images, observed, seed=0))


def run(models=tuple(MODELS), likelihoods=("continuous", "discrete"), repeats=5, kinds=KINDS):
    """Times everything, or some kinds of it.

    Args:
      models: names.
      likelihoods: names.
      repeats: rounds.
      kinds: of KINDS. "step" is always measured, "plain" is a step of the plain implementation, "compile" compiles
        steps COMPILATIONS times instead of once, "floors" those of a step and an evaluation, "alone" start and peak
        memory of a process of its own.

    Returns:
      dict of results that JSON can hold: for each likelihood and model the seconds of what of `kinds` it has, and of
      tracing and compiling it.

    Raises:
      InputError: for a kind that does not exist.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise InputError(f"kind is {unknown[0]!r}; it must be one of {', '.join(KINDS)}")
    kinds = {"step", *kinds}
    report = dict(environment.here(), batches_per_call=batches_per_call(), repeats=repeats, cells=[])
    with tqdm(total=_stages(models, likelihoods, kinds), unit="stage", disable=None, leave=False) as bar:
        for likelihood in likelihoods:
            report["cells"] += _measure(models, likelihood, repeats, kinds, bar)
    return report


def _timed(name, kinds):
    """What of TIMED is measured of a model: the plain implementation has an SPN."""
    return [kind for kind in TIMED if kind in kinds and (kind != "plain" or MODELS[name][0])]


def _compilations(name, kinds):
    """For each round of compilations what is compiled of a model: in the first every kind, in the others COMPILED."""
    timed = _timed(name, kinds)
    again = [kind for kind in timed if kind in COMPILED]
    return [timed] + [again] * (COMPILATIONS - 1) if "compile" in kinds else [timed]


def _stages(models, likelihoods, kinds):
    """How many compilations, rounds of one kind, floors and processes of their own a benchmark has."""
    rounds = {kind for name in models for kind in _timed(name, kinds)}
    compilations = sum(len(compiled) for name in models for compiled in _compilations(name, kinds))
    return len(likelihoods) * (compilations + len(models) * len(kinds & {"floors", "alone"}) + len(rounds))


def _measure(models, likelihood, repeats, kinds, bar):
    """The cells of one likelihood; `bar` says what is being done and counts it."""
    def stage(what, call, *arguments):
        bar.set_description(f"{what}, {likelihood}")
        result = call(*arguments)
        bar.update()
        return result

    dataset = _load(likelihood)
    contenders, first = {}, {name: collections.defaultdict(list) for name in models}
    for turns in zip(*(_compilations(name, kinds) for name in models)):
        for name, compiled in zip(models, turns):
            contender = _contender(name, likelihood, dataset)
            if "plain" in compiled:
                contender["plain"] = plain_step_timing(contender["trainer"])
            for kind in compiled:
                first[name][kind].append(stage(f"compiling {kind} of {name}", contender[kind].first))
            contenders.setdefault(name, contender)
    for kind in TIMED:
        turns = [contender[kind] for name, contender in contenders.items() if kind in first[name]]
        if turns:
            stage(f"timing {kind}", interleave, turns, repeats)
    cells = []
    for name, contender in contenders.items():
        cell = dict(model=name, likelihood=likelihood, validation_images=len(dataset.validation))
        cell |= _summarise(contender, first[name])
        if "floors" in kinds:
            cell |= stage(f"floors of {name}", _floors, contender["trainer"], repeats)
        if "alone" in kinds:
            cell |= stage(f"{name} in a process of its own", alone, name, likelihood)
        cells.append(cell)
    return cells


def _load(likelihood):
    """MNIST's sample, its validation images repeated to as many as MNIST has."""
    dataset = load_dataset("mnist_sample", likelihood)
    validation = np.resize(dataset.validation, [VALIDATED, dataset.validation.shape[1]])
    return dataclasses.replace(dataset, validation=validation)


def _contender(name, likelihood, dataset):
    trainer = make_trainer(_config(name, likelihood), dataset)
    contender = dict(trainer=trainer)
    contender["step"] = step_timing(trainer)
    contender["validation"] = Timing(lambda: trainer.validate(tf.constant(0)))
    contender["evaluation"] = evaluation_timing(trainer.model, dataset.test)
    contender["inpainting"] = inpainting_timing(trainer.model, dataset.test)
    return contender


def _summarise(contender, first):
    """The seconds of each kind, and those of its first calls without the time that such a call takes later."""
    cell = {kind: summary(contender[kind].seconds) for kind in first}
    cell["compile"] = {}
    for kind, seconds in first.items():
        later = contender[kind].median * contender[kind].units
        cell["compile"][kind] = summary([each - later for each in seconds])
    return cell


def _floors(trainer, repeats):
    model, config = trainer.model, trainer.config
    step_floor = floor_timings(model, config.batch_size, config.batch_size * config.train_samples, True)
    rows = codes_at_once(model.graph.num_variables)
    chunk_floor = floor_timings(model, EVALUATION_BATCH, rows, False)
    timings = [t for pieces in (step_floor, chunk_floor) for ts in pieces.values() for t in ts]
    for timing in timings:
        timing.first()
    interleave(timings, repeats)
    return dict(step_floor=floor_of(step_floor),
                evaluation_floor={k: v * 5000 / rows for k, v in floor_of(chunk_floor).items()})


def validation_share(cell):
    """The time of a validation of VALIDATED images at k = 5, in units of that of the 128 training batches before it."""
    return cell["validation"]["median"] / (128 * cell["step"]["median"])


# --- how cost grows ---------------------------------------------------------------------------------------------------

SCALING = {
    "samples k": ("train_samples", (1, 2, 5, 10, 20)),
    "batch": ("batch_size", (32, 64, 128, 256, 512)),
    "super-pixel side Δ": ("delta", (4, 7, 14)),
    "experts per super-pixel": ("num_components", (1, 2, 4, 8)),
}


def scaling(repeats=3):
    """Seconds of an SPVAE training step (continuous, Table 2's size) as one setting grows and the others stay.

    Args:
      repeats: rounds.

    Returns:
      dict title -> list of [value, median seconds].
    """
    dataset, report = load_dataset("mnist_sample", "continuous"), {}
    for title, (key, values) in tqdm(SCALING.items(), desc="how a step grows", disable=None, leave=False):
        timings = []
        for value in values:
            timings.append(step_timing(make_trainer(_config("SPVAE", "continuous", **{key: value}), dataset), 4))
            timings[-1].first()
        interleave(timings, repeats)
        report[title] = [[value, timing.median] for value, timing in zip(values, timings)]
    return report


# --- text -------------------------------------------------------------------------------------------------------------

def format_report(report):
    """The report as text, ratios first.

    Args:
      report: of `run`.

    Returns:
      str.
    """
    cells = {(c["likelihood"], c["model"]): c for c in report["cells"]}
    lines = [report["device"], report["versions"], f"commit {report['commit']}; medians of {report['repeats']} rounds",
             "", "ratios of training steps"]
    pairs = (("SPVAE", "VAE"), ("Conv-SPVAE", "Conv-VAE"))
    for likelihood in dict.fromkeys(key[0] for key in cells):
        for one, other in pairs:
            if (likelihood, one) in cells and (likelihood, other) in cells:
                a, b = (cells[likelihood, n]["step"]["median"] for n in (one, other))
                lines.append(f"  {likelihood:10}  {one} / {other:8} {a / b:6.2f}")
        for name in (pair[0] for pair in pairs):
            cell = cells.get((likelihood, name))
            if cell and "plain" in cell:
                compile_ratio = cell["compile"]["plain"]["median"] / cell["compile"]["step"]["median"]
                lines.append(f"  {likelihood:10}  plain / ours, {name}: step "
                             f"{cell['plain']['median'] / cell['step']['median']:.1f}, "
                             f"compilation {compile_ratio:.1f}")
    lines += ["", f"{'':22}" + "".join(f"{title:>{width}}" for title, (width, _) in COLUMNS.items())]
    for (likelihood, name), cell in cells.items():
        lines.append(f"{name + ', ' + likelihood:22}" + "".join(
            f"{_text(cell, column):>{width}}" for width, column in COLUMNS.values()))
    notes = {"validation": f"{VALIDATED:,} images at k = 5, as a share of the 128 training batches before it",
             "inpainting": f"the right halves of {INPAINTED} images, posterior mean, k = 100",
             "start": f"from the start of a process to the end of its first {report['batches_per_call']} training "
                      "steps; peak: of that process, validation and evaluation included, on a GPU of its memory"}
    lines += [f"{kind}: {note}" for kind, note in notes.items() if any(kind in cell for cell in report["cells"])]
    return "\n".join(lines)


def _seconds(summary):
    """The median of a `summary`, with the least and the most in brackets if there are several."""
    text = "{median:.1f} ({min:.1f}–{max:.1f})" if summary["min"] < summary["max"] else "{median:.1f}"
    return text.format(**summary)


# title -> (width, text from a cell)
COLUMNS = {
    "step ms": (9, lambda c: f"{1e3 * c['step']['median']:.2f}"),
    "(min–max)": (17, lambda c: f"({1e3 * c['step']['min']:.2f}–{1e3 * c['step']['max']:.2f})"),
    "× floor": (9, lambda c: f"{c['step']['median'] / c['step_floor']['sum']:.2f}"),
    "validation": (12, lambda c: f"{validation_share(c):.0%}"),
    "compile s": (19, lambda c: _seconds(c["compile"]["step"])),
    "start s": (9, lambda c: f"{c['start']:.1f}"),
    "k=5000 img/s": (14, lambda c: f"{1 / c['evaluation']['median']:.1f}"),
    "of floor": (10, lambda c: f"{c['evaluation_floor']['sum'] / c['evaluation']['median']:.0%}"),
    "inpainting s": (14, lambda c: f"{c['inpainting']['median']:.2f}"),
    "peak MiB": (10, lambda c: f"{c['peak_mib']:.0f}"),
}


def _text(cell, column):
    try:
        return column(cell)
    except (KeyError, TypeError):  # not measured; no figure where memory cannot be told
        return "–"
