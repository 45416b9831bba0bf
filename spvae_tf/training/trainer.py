"""Algorithm 1: stochastic variational learning of an SPVAE, with early stopping by validation (section 4).

Between two validations lies a block of 128 batches, which is one compiled call. All randomness is a function of the
seed and the batch's number, so a run that was stopped goes on exactly as if it had not been.
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


class Compiled:
    """A model, its optimiser, and what is compiled of its training; it serves one run after the other."""

    def __init__(self, model, learning_rate):
        self.model = model
        # Adam's defaults of TensorFlow 1, in which epsilon is 1e-8
        self.optimizer = keras.optimizers.Adam(learning_rate, epsilon=1e-8)
        self.optimizer.build(model.trainable_variables)
        self._fresh = [v.numpy() for v in self.optimizer.variables]
        self.update = tf.function(self._update, jit_compile=True, autograph=False)
        self.bounds = tf.function(self._bounds, jit_compile=True, autograph=False)

    def restart(self, model):
        """Takes the weights of another model of the same sizes, and a fresh optimiser."""
        for variable, value in zip(self.model.trainable_variables, model.trainable_variables, strict=True):
            variable.assign(value)
        for variable, value in zip(self.optimizer.variables, self._fresh, strict=True):
            variable.assign(value)

    def _update(self, x, log_base, bits):
        """One gradient ascent step on the mean bound of a batch; returns the bound, nats per image."""
        noise = self._noise(bits)
        with tf.GradientTape() as tape:
            bound = tf.reduce_mean(self.model.bound(x, log_base, noise))
            loss = -bound
        variables = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return bound

    def _noise(self, bits):
        return standard_normal(bits, self.model.variable_dtype)

    def _bounds(self, x, log_base, bits):
        """The sum of the bounds of some images."""
        return tf.reduce_sum(self.model.bound(x, log_base, self._noise(bits)))


class CompiledCache:
    """What was compiled of the last few models, which runs of the same sizes share one after the other."""

    SIZE = 4  # a sweep takes two models and two likelihoods in turn

    def __init__(self):
        self.entries = {}

    def get(self, model, learning_rate):
        """Compiled of a model like this one, with its weights and a fresh optimiser."""
        key = json.dumps(model.get_config() | {"name": None, "seed": None, "learning_rate": learning_rate})
        if key in self.entries:
            self.entries[key].restart(model)
        else:
            while len(self.entries) >= self.SIZE:
                del self.entries[next(iter(self.entries))]
            self.entries[key] = Compiled(model, learning_rate)
        return self.entries[key]


class Trainer:
    """One training run.

    Args:
      compiled: Compiled; its model is trained, from the weights it has.
      dataset: data.Dataset.
      config: resolved configuration (configuration.resolve).
      workdir: folder of the run's checkpoint and log.
    """

    def __init__(self, compiled, dataset, config, workdir):
        self.compiled, self.model, self.optimizer = compiled, compiled.model, compiled.optimizer
        self.config, self.workdir = config, Path(workdir)
        self.stream = make_stream(config, len(dataset.train))
        self.train_images, self.train_base = self._place(dataset.train)
        self.validation_images, self.validation_base = self._place(dataset.validation)
        self.seed = make_seed(config.seed)
        self.step = self.strikes = self.best_step = 0
        self.best_ll, self.best, self.seconds, self.history = -np.inf, self._weights(), 0.0, []
        self.train_block = tf.function(self._train_block, input_signature=[
            tf.TensorSpec([None, config.batch_size], tf.int32), tf.TensorSpec([], tf.int32)], autograph=False)
        self.validate = tf.function(self._validate, autograph=False)

    def _place(self, images):
        """The images on the device, and their base measure, which no parameter changes."""
        images = tf.cast(images, self.model.variable_dtype)
        base = [self.model.log_base(images[start:start + BASE_BATCH]) for start in range(0, len(images), BASE_BATCH)]
        return images, tf.concat(base, 0)

    # --- compiled -----------------------------------------------------------------------------------------------

    def _batch(self, indices, step):
        shape = self.model.noise_shape(self.config.train_samples, self.config.batch_size)
        bits = random_bits(shape, self._seed_of(TRAINING, step))
        return tf.gather(self.train_images, indices), tf.gather(self.train_base, indices), bits

    def _seed_of(self, purpose, step):
        return fold_in(fold_in(self.seed, purpose), step)

    def _train_block(self, indices, first_step):
        """Batches `indices` [n, batch_size] one after the other; returns their bounds [n].

        The next batch is gathered and its noise drawn while a step computes.
        """
        count = tf.shape(indices)[0]

        def step(n, batch, bounds):
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
        seed = self._seed_of(VALIDATION, step)
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
        return self.compiled.bounds(x, log_base, bits)

    # --- the run ------------------------------------------------------------------------------------------------

    def run(self, on_validation=None):
        """Trains until early stopping or `config.max_batches`, then puts the best weights into the model.

        Args:
          on_validation: called with each row of the log.

        Returns:
          The log: a list of dicts with the fields LOG_FIELDS, log-likelihoods in nats per image.

        Raises:
          NonFiniteError: at a NaN or infinity; the checkpoint is that of the last good validation.
          InputError: when the run in the folder is past `config.max_batches` already, or was ended between two
            validations and shall go on, or its checkpoint is damaged.
        """
        self.resume()
        self._check_can_go_on()
        last_save = time.monotonic()
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
        checkpoint.assign(self.model.trainable_variables, self.best, self.path)
        return self.history

    def _check_can_go_on(self):
        limit, period = self.config.max_batches, self.config.validate_every
        if limit and self.step > limit:
            raise InputError(f"max_batches is {limit}; the run in {self.workdir} has had {self.step} already")
        if self.step % period and not self.finished:  # the validation there would count as one more
            raise InputError(f"the run in {self.workdir} was ended after {self.step} batches, between two validations, "
                             f"which are every {period}; it cannot go on as if it had not been: choose another folder "
                             "or delete that one")

    def _train_to_next_validation(self):
        """A block of batches and a validation; the best weights and the log are kept."""
        started, before, indices = time.monotonic(), self._snapshot(), self._next_indices()
        bounds = self.train_block(indices, tf.constant(self.step)).numpy()
        if not np.isfinite(bounds).all():
            self._fail(before, indices, bounds)
        step = self.step + len(indices)
        val_ll = float(self.validate(tf.constant(step)))
        if not np.isfinite(val_ll):
            self._put(before)
            self.save()
            raise NonFiniteError(f"the validation bound is {val_ll} after batch {step}; "
                                 f"the last good checkpoint is {self.path}")
        self.step, self.seconds = step, self.seconds + time.monotonic() - started
        self._note(float(bounds.mean()), val_ll)

    def _next_indices(self):
        """The images of the batches up to the next validation; blocks begin at multiples of `validate_every`."""
        period, limit = self.config.validate_every, self.config.max_batches
        start = self.step - self.step % period
        end = min(start + period, limit) if limit else start + period
        return self.stream(start, period)[self.step - start:end - start]

    @property
    def finished(self):
        """Whether early stopping or the limit on batches has ended the run."""
        limit = self.config.max_batches
        return self.strikes >= self.config.patience or bool(limit and self.step >= limit)

    def _note(self, train_ll, val_ll):
        """Early stopping: counts the validations in a row that brought no new best, and keeps the best weights."""
        is_best = val_ll > self.best_ll
        if is_best:
            self.best_ll, self.best_step, self.best, self.strikes = val_ll, self.step, self._weights(), 0
        else:
            self.strikes += 1
        self.history.append(dict(batch=self.step, train_ll=train_ll, val_ll=val_ll, best=int(is_best),
                                 seconds=round(self.seconds, 2)))

    # --- state --------------------------------------------------------------------------------------------------

    @property
    def path(self):
        """The run's checkpoint."""
        return self.workdir / checkpoint.CHECKPOINT

    def _weights(self):
        return [v.numpy() for v in self.model.trainable_variables]

    def _snapshot(self):
        return self._weights(), [v.numpy() for v in self.optimizer.variables]

    def _put(self, snapshot):
        checkpoint.assign(self.model.trainable_variables, snapshot[0], self.path)
        checkpoint.assign(self.optimizer.variables, snapshot[1], self.path)

    def save(self):
        """Writes the checkpoint (weights, best weights, optimiser, step, log) and the log as CSV."""
        weights, optimizer = self._snapshot()
        state = dict(step=self.step, strikes=self.strikes, best_step=self.best_step, best_ll=self.best_ll,
                     seconds=self.seconds, history=self.history)
        # first the log: a finished run is not saved again, and must not lack its end
        files.write_table(self.workdir / "log.csv", self.history, LOG_FIELDS)
        checkpoint.save(self.path, dict(weights=weights, best=self.best, optimizer=optimizer), state)

    def resume(self):
        """Goes back to the checkpoint in the run's folder, if there is one."""
        if not self.path.exists():
            return
        arrays, state = checkpoint.restore(self.path)
        self._put((arrays["weights"], arrays["optimizer"]))
        self.best = arrays["best"]
        for name, value in state.items():
            setattr(self, name, value)

    # --- what to say about a NaN --------------------------------------------------------------------------------

    def _fail(self, before, indices, bounds):
        """Goes back to the last good weights, keeps them, and raises with the batch and the tensor."""
        bad = int(np.flatnonzero(~np.isfinite(bounds))[0])
        self._put(before)
        self.save()
        culprit = None
        for n in range(bad + 1):  # the gradient of the batch before may be to blame
            if n >= bad - 1:
                culprit = culprit or self._first_non_finite(indices[n], self.step + n)
            if culprit:
                break
            self.compiled.update(*self._batch(indices[n], self.step + n))
        self._put(before)
        where, name = (self.step + n, culprit) if culprit else (self.step + bad, "the bound")
        raise NonFiniteError(f"{name} is not finite in batch {where}; the last good checkpoint is {self.path}")

    def _first_non_finite(self, indices, step):
        """The name of the first tensor of a training step that is not finite, or None."""
        model = self.model
        x, log_base, bits = self._batch(indices, step)
        noise = standard_normal(bits, model.variable_dtype)
        with tf.GradientTape() as tape:
            mean, precision = model.encode(x)
            log_weights, _ = model.importance_weights(x, (mean, precision), noise)
            bound = tf.reduce_mean(model.bound(x, log_base, noise))
        variables = model.trainable_variables
        named = [("the image batch", x), *((f"weight {v.path}", v) for v in variables),
                 ("the mean of q(z|x)", mean), ("the precision of q(z|x)", precision),
                 ("the log importance weight", log_weights), ("the bound", bound),
                 *((f"the gradient of {v.path}", g) for v, g in zip(variables, tape.gradient(bound, variables)))]
        return next((name for name, tensor in named if not np.isfinite(tf.convert_to_tensor(tensor)).all()), None)
