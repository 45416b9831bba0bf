"""Algorithm 1: stochastic variational learning of an SPVAE, with early stopping by validation (section 4).

The `validate_every` batches between two validations are one call. All randomness is a function of the seed and the
batch's number, so a run that was stopped goes on exactly as if it had not been.
"""

import json
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.ops.device import validation_batch
from spvae_tf.ops.noise import fold_in, make_seed, random_bits, standard_normal
from spvae_tf.training import checkpoint
from spvae_tf.training.streams import make_stream

BASE_BATCH = 10_000  # images whose base measure is computed at once
SECONDS_BETWEEN_CHECKPOINTS = 30
LOG_FIELDS = ("batch", "train_ll", "val_ll", "best", "seconds")
TRAINING, VALIDATION = 0, 1  # what a stateless seed is for


class NonFiniteError(RuntimeError):
    """Training met a NaN or an infinity; the message names the batch and the tensor."""


def _values(variables):
    return [v.numpy() for v in variables]


class Compiled:
    """A model, its optimiser and their compiled functions; it serves one run after the other."""

    def __init__(self, model, learning_rate):
        self.model = model
        self.optimizer = keras.optimizers.Adam(learning_rate, epsilon=1e-8)  # as in TensorFlow 1
        self.optimizer.build(model.trainable_variables)
        self._fresh = _values(self.optimizer.variables)
        self.update = tf.function(self._update, jit_compile=True, autograph=False)
        self.sum_of_bounds = tf.function(self._sum_of_bounds, jit_compile=True, autograph=False)

    def restart(self, model):
        """Takes the weights of another model of the same sizes, and a fresh optimiser."""
        for variable, value in zip([*self.model.trainable_variables, *self.optimizer.variables],
                                   [*model.trainable_variables, *self._fresh], strict=True):
            variable.assign(value)

    def _update(self, x, log_base, bits):
        """One gradient ascent step on the mean bound of a batch; returns the bound, nats per image."""
        noise = standard_normal(bits, self.model.variable_dtype)
        with tf.GradientTape() as tape:
            bound = tf.reduce_mean(self.model.bound(x, log_base, noise))
            loss = -bound
        variables = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return bound

    def _sum_of_bounds(self, x, log_base, bits):
        return tf.reduce_sum(self.model.bound(x, log_base, standard_normal(bits, self.model.variable_dtype)))


class CompiledCache:
    """Up to SIZE of Compiled, by their models' sizes; the oldest makes room for a new one.

    Runs of equal sizes share one model object: training the next overwrites this one's.
    """

    SIZE = 4  # a sweep takes two models and two likelihoods in turn

    def __init__(self):
        self.entries = {}

    def get(self, model, learning_rate):
        """A Compiled with the weights of this model and a fresh optimiser."""
        key = json.dumps(model.get_config() | {"name": None, "seed": None, "learning_rate": learning_rate})
        if key not in self.entries:
            if len(self.entries) == self.SIZE:
                del self.entries[next(iter(self.entries))]
            self.entries[key] = Compiled(model, learning_rate)
        self.entries[key].restart(model)
        return self.entries[key]


class Trainer:
    """One training run: a Compiled, whose model is trained from the weights it has, on a data.Dataset."""

    STATE = ("step", "strikes", "best_step", "best_ll", "seconds", "history")  # in a checkpoint, beside the arrays

    def __init__(self, compiled, dataset, config, workdir):
        self.compiled, self.model, self.optimizer = compiled, compiled.model, compiled.optimizer
        self.config, self.workdir = config, Path(workdir)
        self.path = self.workdir / checkpoint.CHECKPOINT
        self.stream = make_stream(config, len(dataset.train))
        self.train_images, self.train_base = self._to_device(dataset.train)
        self.validation_images, self.validation_base = self._to_device(dataset.validation)
        self.seed = make_seed(config.seed)
        self.step = self.strikes = self.best_step = 0
        self.best_ll, self.seconds, self.history = -np.inf, 0.0, []
        self.best = _values(self.model.trainable_variables)
        self.train_block = tf.function(self._train_block, input_signature=[
            tf.TensorSpec([None, config.batch_size], tf.int32), tf.TensorSpec([], tf.int32)], autograph=False)
        self.validate = tf.function(self._validate, autograph=False)

    def _to_device(self, images):
        """The images on the device, and their base measure, which no parameter changes."""
        images = tf.cast(images, self.model.variable_dtype)
        base = [self.model.log_base(images[start:start + BASE_BATCH]) for start in range(0, len(images), BASE_BATCH)]
        return images, tf.concat(base, 0)

    def _batch(self, indices, step):
        """Images, base measure and random bits of batch number `step`."""
        shape = self.model.noise_shape(self.config.train_samples, self.config.batch_size)
        bits = random_bits(shape, fold_in(fold_in(self.seed, TRAINING), step))
        return tf.gather(self.train_images, indices), tf.gather(self.train_base, indices), bits

    def _train_block(self, indices, first_step):
        """Batches `indices` [n, batch_size] one after the other; returns their bounds [n]."""
        count = tf.shape(indices)[0]

        def step(n, batch, bounds):
            # does not wait for the update: the next batch is gathered and its noise drawn meanwhile
            following = self._batch(indices[tf.minimum(n + 1, count - 1)], first_step + n + 1)
            return n + 1, following, bounds.write(n, self.compiled.update(*batch))

        bounds = tf.TensorArray(self.model.variable_dtype, count, element_shape=[])
        start = (0, self._batch(indices[0], first_step), bounds)
        return tf.while_loop(lambda n, *_: n < count, step, start)[-1].stack()

    def _validate(self, step):
        """The mean bound of the whole validation set, nats per image; every image has noise of its own."""
        count, num_pixels = self.validation_images.shape
        size = min(validation_batch(num_pixels), count)
        rest = count % size
        seed = fold_in(fold_in(self.seed, VALIDATION), step)
        total = tf.reduce_sum(tf.map_fn(lambda start: self._sum_of_bounds(start, size, seed),
                                        tf.range(0, count - size + 1, size),
                                        fn_output_signature=self.model.variable_dtype))
        if rest:
            total += self._sum_of_bounds(count - rest, rest, seed)
        return total / count

    def _sum_of_bounds(self, start, size, seed):
        x, log_base = self.validation_images[start:start + size], self.validation_base[start:start + size]
        x, log_base = tf.ensure_shape(x, [size, x.shape[1]]), tf.ensure_shape(log_base, [size])
        bits = random_bits(self.model.noise_shape(self.config.train_samples, size), fold_in(seed, start))
        return self.compiled.sum_of_bounds(x, log_base, bits)

    def run(self, on_validation=None):
        """Trains until early stopping or `max_batches`, then takes the best weights; returns the log.

        KeyboardInterrupt leaves a checkpoint of the last validation.
        """
        self.resume()
        self.sound = self._snapshot()
        try:
            self._run(on_validation)
        except KeyboardInterrupt:  # Ctrl-C or a signal that ends the process (ops.runtime.end_softly)
            if self.sound[1]["history"]:
                self.save()
            raise
        checkpoint.assign(self.model.trainable_variables, self.best, self.path)
        return self.history

    def _run(self, on_validation):
        last_save = -np.inf  # the first validation is saved at once
        # disable=None: quiet where standard error is no terminal
        with tqdm(total=self.config.max_batches, initial=self.step, unit="batch", disable=None, leave=False) as bar:
            while not self.finished:
                self._train_to_next_validation()
                row = self.history[-1]
                bar.update(row["batch"] - bar.n)
                bar.set_postfix(ELBO=f"{row['train_ll']:.1f}", validation=f"{row['val_ll']:.1f}",
                                best=f"{self.best_ll:.1f}")
                if on_validation:
                    on_validation(row)
                if self.finished or time.monotonic() - last_save > SECONDS_BETWEEN_CHECKPOINTS:
                    self.save()
                    last_save = time.monotonic()

    @property
    def finished(self):
        """Whether early stopping or the limit on batches has ended the run."""
        return self.strikes >= self.config.patience or self.step >= (self.config.max_batches or np.inf)

    def _train_to_next_validation(self):
        """A block of batches and a validation; early stopping counts those in a row that brought no new best."""
        started, indices = time.monotonic(), self._next_indices()
        bounds = self.train_block(indices, tf.constant(self.step)).numpy()
        finite = np.isfinite(bounds)
        if not finite.all():
            self._restore(**self.sound[0])
            batch, name = self._find_non_finite(indices[:finite.argmin() + 1])
            self._fail(f"{name} is not finite in batch {batch}")
        step = self.step + len(indices)
        val_ll = float(self.validate(tf.constant(step)))
        if not np.isfinite(val_ll):
            self._fail(f"the validation bound is {val_ll} after batch {step}")
        self.step, self.seconds = step, self.seconds + time.monotonic() - started
        is_best = val_ll > self.best_ll
        self.strikes = 0 if is_best else self.strikes + 1
        if is_best:
            self.best_ll, self.best_step, self.best = val_ll, step, _values(self.model.trainable_variables)
        self.history.append(dict(batch=step, train_ll=float(bounds.mean()), val_ll=val_ll, best=int(is_best),
                                 seconds=round(self.seconds, 2)))
        self.sound = self._snapshot()

    def _next_indices(self):
        """The images of the batches up to the next validation; blocks begin at multiples of `validate_every`."""
        period, limit = self.config.validate_every, self.config.max_batches
        start = self.step - self.step % period
        return self.stream(start, period)[self.step - start:limit and limit - start]

    def _snapshot(self):
        """(arrays, state) of a checkpoint, which training does not change any more."""
        arrays = dict(weights=_values(self.model.trainable_variables), best=self.best,
                      optimizer=_values(self.optimizer.variables))
        return arrays, {name: getattr(self, name) for name in self.STATE} | dict(history=list(self.history))

    def _restore(self, weights, best, optimizer):
        checkpoint.assign(self.model.trainable_variables, weights, self.path)
        checkpoint.assign(self.optimizer.variables, optimizer, self.path)
        self.best = best

    def save(self):
        """Writes the log, then the checkpoint, of the last validation; after it a finished run is not saved again."""
        arrays, state = self.sound
        files.write_table(self.workdir / "log.csv", state["history"], LOG_FIELDS)
        checkpoint.save(self.path, arrays, state)

    def resume(self):
        """Goes back to the checkpoint in the run's folder, if there is one; raises InputError if it cannot go on."""
        if not self.path.exists():
            return
        arrays, state = checkpoint.restore(self.path)
        self._restore(**arrays)
        for name, value in state.items():
            setattr(self, name, value)
        limit, period = self.config.max_batches, self.config.validate_every
        if limit and self.step > limit:
            raise InputError(f"max_batches is {limit}; the run in {self.workdir} has had {self.step} already")
        if self.step % period and not self.finished:  # the validation there would count as one more
            raise InputError(f"the run in {self.workdir} ended after {self.step} batches, between two validations, "
                             f"which are every {period}; it cannot go on: choose another folder or delete that one")

    def _fail(self, reason):
        """Goes back to the last good validation, saves it, and raises NonFiniteError."""
        self._restore(**self.sound[0])
        self.save()
        raise NonFiniteError(f"{reason}; the last good checkpoint is {self.path}")

    def _find_non_finite(self, indices):
        """Replays batches, the bound of whose last is not finite; returns (batch, name) of the first such tensor."""
        for step, rows in enumerate(indices, self.step):
            batch = self._batch(rows, step)
            if step >= self.step + len(indices) - 2:  # the gradient of the batch before the last may be to blame
                for name, tensor in self._tensors(*batch):
                    if not np.isfinite(tf.convert_to_tensor(tensor)).all():
                        return step, name
            self.compiled.update(*batch)
        return step, "the bound"

    def _tensors(self, x, log_base, bits):
        """(name, tensor) of all that a training step computes, in the order in which it does."""
        noise = standard_normal(bits, self.model.variable_dtype)
        with tf.GradientTape() as tape:
            mean, precision = self.model.encode(x)
            log_weights, _ = self.model.log_importance_weights(x, (mean, precision), noise)
            bound = tf.reduce_mean(self.model.bound(x, log_base, noise))
        variables = self.model.trainable_variables
        return [("the image batch", x), *((f"weight {v.path}", v) for v in variables),
                ("the mean of q(z|x)", mean), ("the precision of q(z|x)", precision),
                ("the log importance weight", log_weights), ("the bound", bound),
                *((f"the gradient of {v.path}", g) for v, g in zip(variables, tape.gradient(bound, variables)))]
