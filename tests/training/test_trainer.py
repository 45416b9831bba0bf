"""Training: early stopping, exact resumption, Adam, and what happens at a NaN."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.spvae import build_model
from spvae_tf.training import checkpoint, configuration
from spvae_tf.training import trainer as training
from spvae_tf.training.data import Dataset, load_dataset
from spvae_tf.training.streams import epochs
from spvae_tf.training.trainer import Compiled, NonFiniteError, Trainer

NUM_TRAIN, NUM_VALIDATION, BATCH_SIZE, BLOCK = 48, 10, 8, 3


def make_dataset():
    rng = np.random.default_rng(0)
    train, validation, test = (rng.random((n, 144), np.float32) for n in (NUM_TRAIN, NUM_VALIDATION, 9))
    return Dataset("tiny", (12, 12), train, validation, test, None, None, None)


def make_config(**overrides):
    config = configuration.make_config("SPVAE", "tiny.npz")
    config.update(dict(hidden_units=4, latent_dim=2, delta=6, batch_size=BATCH_SIZE, train_samples=2,
                       validate_every=BLOCK, max_batches=4 * BLOCK))
    config.update(overrides)
    return configuration.resolve(config)


def make_trainer(workdir, dataset=None, **overrides):
    config, dataset = make_config(**overrides), dataset or make_dataset()
    model = build_model(config.model, dataset.image_shape, config.likelihood, config.hidden_units, config.latent_dim,
                        delta=config.delta, seed=config.seed)
    return Trainer(Compiled(model, config.learning_rate), dataset, config, workdir)


def curve(history):
    """A log without the time it took."""
    return [(row["batch"], row["train_ll"], row["val_ll"], row["best"]) for row in history]


def weights_of(trainer):
    return [v.numpy() for v in trainer.model.trainable_variables]


def assert_equal_weights(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def eagerly():
    """Step by step: quicker than compiling for a dozen batches, and open to what a test wants to watch or break."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def script(trainer, values):
    """Replaces batches and validations: each block adds one to the first weight, validations give `values`."""
    values = iter(values)

    def block(indices, first_step):
        trainer.model.trainable_variables[0].assign_add(tf.ones_like(trainer.model.trainable_variables[0]))
        return tf.zeros(len(indices))
    trainer.train_block, trainer.validate = block, lambda step: tf.constant(next(values), tf.float64)


# --- early stopping ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("protocol, patience", [("released", 11), ("paper", 5)])
def test_early_stopping(tmp_path, protocol, patience):
    """The run ends at the `patience`-th validation in a row without a new best; the best weights come back."""
    trainer = make_trainer(tmp_path, protocol=protocol, max_batches=None)
    start = weights_of(trainer)
    losing = [-2.0] * (patience - 1)  # one short of the end; as good as the best is no new best
    values = [-3.0, -2.0, *losing, -1.0, *losing, -1.5, 0.0]
    script(trainer, values)
    history = trainer.run()
    assert [row["val_ll"] for row in history] == values[:-1]
    assert [row["batch"] for row in history] == [BLOCK * (n + 1) for n in range(len(values) - 1)]
    best = patience + 2  # validations up to the last new best
    assert [n for n, row in enumerate(history, 1) if row["best"]] == [1, 2, best]
    assert (trainer.best_ll, trainer.best_step) == (-1.0, BLOCK * best)
    assert trainer.step == BLOCK * (best + patience)
    np.testing.assert_allclose(weights_of(trainer)[0], start[0] + best, rtol=1e-5)
    arrays, state = checkpoint.restore(trainer.path)
    assert_equal_weights(arrays["best"], weights_of(trainer))
    assert state["step"] == trainer.step


def test_strikes_survive_a_stop(tmp_path):
    first = make_trainer(tmp_path, max_batches=4 * BLOCK, patience=5)
    script(first, [-1.0, -2.0, -2.0, -2.0])
    first.run()
    second = make_trainer(tmp_path, max_batches=None, patience=5)
    script(second, [-2.0, -2.0, 0.0])
    history = second.run()
    assert [row["val_ll"] for row in history] == [-1.0, -2.0, -2.0, -2.0, -2.0, -2.0]
    assert_equal_weights(weights_of(second), weights_of(first))  # the best before the stop
    third = make_trainer(tmp_path, max_batches=None, patience=5)
    script(third, [])  # a finished run draws no batch
    assert third.run() == history
    assert_equal_weights(weights_of(third), weights_of(first))


def test_max_batches(tmp_path):
    """The limit holds exactly: the last block is the shorter."""
    trainer = make_trainer(tmp_path, max_batches=2 * BLOCK + 1)
    script(trainer, [-1.0, -2.0, -3.0])
    assert [row["batch"] for row in trainer.run()] == [BLOCK, 2 * BLOCK, 2 * BLOCK + 1]


def test_run_ended_between_validations_is_not_gone_on_with(tmp_path):
    """The validation at its end would count in early stopping, and the run would not be the one without a limit."""
    trainer = make_trainer(tmp_path, max_batches=BLOCK + 1)
    script(trainer, [-1.0, -2.0])
    trainer.run()
    before = trainer.path.read_bytes()
    make_trainer(tmp_path, max_batches=BLOCK + 1).run()  # it is finished
    with pytest.raises(InputError, match=f"ended after {BLOCK + 1} batches, between two validations, which are every "):
        make_trainer(tmp_path, max_batches=4 * BLOCK).run()
    assert trainer.path.read_bytes() == before


def test_log_file_holds_the_history(tmp_path):
    trainer = make_trainer(tmp_path)
    script(trainer, [-1.25, -2.5, 0.125, -4.0])
    seen = []
    history = trainer.run(on_validation=seen.append)
    assert history == seen == files.read_table(tmp_path / "log.csv")
    assert tuple(history[0]) == training.LOG_FIELDS


# --- randomness and resumption ----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    trainer = make_trainer(tmp_path_factory.mktemp("uninterrupted"), stream="restarted")
    trainer.run()
    return trainer


@pytest.mark.parametrize("where, end, step", [("after a validation", SystemExit, 2), ("in a block", SystemExit, 2),
                                              ("in a block", KeyboardInterrupt, 2)])
def test_resumed_run_equals_the_uninterrupted_one(tmp_path, uninterrupted, monkeypatch, where, end, step):
    """Killed (SystemExit) or interrupted in its third block, and resumed: the same log and weights, to the bit."""
    if end is SystemExit:
        monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    stopped = make_trainer(tmp_path, stream="restarted")
    train_block = stopped.train_block

    def stop(row):
        if where == "after a validation" and row["batch"] == 3 * BLOCK:
            raise end

    def block(indices, first_step):
        bounds = train_block(indices, first_step)
        if where == "in a block" and first_step == 2 * BLOCK:
            raise end
        return bounds

    stopped.train_block = block
    with pytest.raises(end):
        stopped.run(stop)
    assert checkpoint.restore(stopped.path)[1]["step"] == step * BLOCK == files.read_table(
        tmp_path / "log.csv")[-1]["batch"]
    resumed = make_trainer(tmp_path, stream="restarted")
    seen = []
    resumed.run(seen.append)
    assert len(seen) == 4 - step
    assert curve(resumed.history) == curve(uninterrupted.history)
    assert_equal_weights(weights_of(resumed), weights_of(uninterrupted))
    arrays, state = checkpoint.restore(resumed.path)
    expected_arrays, expected_state = checkpoint.restore(uninterrupted.path)
    for group in ("weights", "best", "optimizer"):
        assert_equal_weights(arrays[group], expected_arrays[group])
    for name in ("step", "strikes", "best_step", "best_ll"):
        assert state[name] == expected_state[name]
    assert len(files.read_table(tmp_path / "log.csv")) == 4


def test_the_first_validation_is_saved_at_once(tmp_path):
    """A job that is killed every half minute would get nowhere otherwise."""
    trainer = make_trainer(tmp_path)
    script(trainer, [-1.0])
    with pytest.raises(StopIteration):  # at the second validation
        trainer.run()
    assert checkpoint.restore(trainer.path)[1]["step"] == BLOCK
    interrupted = make_trainer(tmp_path / "other")
    script(interrupted, [])
    interrupted.validate = lambda step: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run()
    assert not interrupted.path.exists()  # there is nothing to go on with


@pytest.mark.parametrize("stream", ["epochs", "restarted"])
def test_same_seed_same_curve_however_often_continued(tmp_path, eagerly, stream):
    whole = make_trainer(tmp_path / "whole", stream=stream)
    other = make_trainer(tmp_path / "other", stream=stream, seed=1)
    for limit in (2 * BLOCK, 3 * BLOCK, 4 * BLOCK):
        parts = make_trainer(tmp_path / "parts", stream=stream, max_batches=limit)
        parts.run()
    assert curve(parts.history) == curve(whole.run())
    assert_equal_weights(weights_of(parts), weights_of(whole))
    assert curve(other.run()) != curve(whole.history)


def test_compiled_equals_eager(tmp_path, eagerly, uninterrupted):
    history = make_trainer(tmp_path, stream="restarted").run()
    np.testing.assert_allclose(curve(history), curve(uninterrupted.history), rtol=1e-4)


def test_trains_in_double_precision(tmp_path, uninterrupted):
    start = weights_of(make_trainer(tmp_path))
    keras.config.set_dtype_policy("float64")
    try:
        trainer = make_trainer(tmp_path, stream="restarted")
        checkpoint.assign(trainer.model.trainable_variables, [a.astype(np.float64) for a in start], "")
        history = trainer.run()
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(weights.dtype == np.float64 for weights in weights_of(trainer))
    np.testing.assert_allclose(curve(history), curve(uninterrupted.history), rtol=1e-4)


def record_bounds(trainer):
    """Makes the trainer's model note the arguments of each of its bounds; only while functions run eagerly."""
    calls, bound = [], trainer.model.bound

    def recorded(x, log_base, noise):
        calls.append((x, log_base, noise))
        return bound(x, log_base, noise)
    trainer.model.bound = recorded
    return calls


def test_noise_is_fresh_in_every_batch_and_validation(tmp_path, eagerly):
    noises = []
    for seed in (0, 0, 1):
        trainer = make_trainer(tmp_path / str(len(noises)), seed=seed, max_batches=2 * BLOCK)
        calls = record_bounds(trainer)
        trainer.run()
        noises.append([noise.numpy() for _, _, noise in calls])
    first, again, other = noises
    assert [noise.shape for noise in first] == ([(8, 2, 8, 2)] * BLOCK + [(8, 2, 10, 2)]) * 2
    values = np.concatenate([np.ravel(noise) for noise in first + other])
    assert len(np.unique(values)) > 0.99 * len(values)
    assert abs(values.mean()) < 4 / np.sqrt(len(values))
    assert abs(values.var() - 1) < 4 * np.sqrt(2 / len(values))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


# --- one step, one validation -----------------------------------------------------------------------------------------

def test_a_block_takes_the_batches_of_the_stream_in_their_order(tmp_path, eagerly):
    """Though each is drawn one step ahead; a last block of fewer batches included."""
    dataset = make_dataset()
    trainer = make_trainer(tmp_path, dataset, max_batches=BLOCK + 1)
    calls = record_bounds(trainer)
    trainer.run()
    seen = [x for x, _, _ in calls if len(x) == BATCH_SIZE]
    np.testing.assert_array_equal(seen, dataset.train[trainer.stream(0, BLOCK + 1)])


def test_a_second_run_is_not_compiled_anew(tmp_path):
    first = make_trainer(tmp_path / "first", max_batches=BLOCK)
    first.run()
    rng = np.random.default_rng(1)
    images = [rng.random((n, 144), np.float32) for n in (30, 2 * NUM_VALIDATION, 5)]
    again = Trainer(first.compiled, Dataset("other", (12, 12), *images, None, None, None), first.config,
                    tmp_path / "again")
    again.run()
    compiled = first.compiled
    for function, shapes in ((compiled.update, 1), (compiled.sum_of_bounds, 2)):
        assert function.experimental_get_tracing_count() == shapes  # another number of images at once in validation


def test_updates_are_those_of_tensorflow_1_adam(tmp_path, eagerly):
    """Gradient ascent on the mean bound of the stream's batch; m, v and the step size by hand, in float64."""
    dataset = make_dataset()
    trainer = make_trainer(tmp_path, dataset, validate_every=1, max_batches=3, learning_rate=0.01)
    calls, model = record_bounds(trainer), trainer.model
    seen = [weights_of(trainer)]
    trainer.run(lambda row: seen.append(weights_of(trainer)))
    batches = [call for call in calls if len(call[0]) == BATCH_SIZE]
    m = v = [0.0] * len(seen[0])
    for t, (x, log_base, noise) in enumerate(batches, 1):
        np.testing.assert_array_equal(x, dataset.train[trainer.stream(t - 1, 1)[0]])
        np.testing.assert_allclose(log_base, model.log_base(x), rtol=1e-5)
        checkpoint.assign(model.trainable_variables, seen[t - 1], "")
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(type(model).bound(model, x, log_base, noise))
        gradients = [np.asarray(tf.convert_to_tensor(g), np.float64)
                     for g in tape.gradient(loss, model.trainable_variables)]
        np.testing.assert_allclose(trainer.history[t - 1]["train_ll"], -loss, rtol=1e-5)
        m = [0.9 * a + 0.1 * g for a, g in zip(m, gradients)]
        v = [0.999 * a + 0.001 * g**2 for a, g in zip(v, gradients)]
        rate = 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        for before, after, a, b in zip(seen[t - 1], seen[t], m, v, strict=True):
            np.testing.assert_allclose(after - before.astype(np.float64), -rate * a / (np.sqrt(b) + 1e-8), atol=2e-6)


def test_epsilon_of_adam_is_that_of_tensorflow_1(tmp_path):
    trainer = make_trainer(tmp_path, learning_rate=0.01)
    variables, before = trainer.model.trainable_variables, weights_of(trainer)
    gradient = 1e-7  # so small that epsilon decides the step: TensorFlow's 1e-7 would make it a sixth of this
    trainer.optimizer.apply_gradients([(tf.fill(v.shape, gradient), v) for v in variables])
    step = 0.01 * np.sqrt(0.001) / 0.1 * 0.1 * gradient / (np.sqrt(0.001) * gradient + 1e-8)
    for start, variable in zip(before, variables):
        np.testing.assert_allclose(start - variable.numpy(), step, rtol=1e-3, atol=2e-7)


@pytest.mark.parametrize("size", [4, 5, 7, 10, 500])
def test_validation_is_the_mean_over_every_image_once(tmp_path, eagerly, monkeypatch, size):
    monkeypatch.setattr(training, "validation_batch", lambda num_pixels: size)
    monkeypatch.setattr(training, "BASE_BATCH", 3)
    dataset = make_dataset()
    trainer = make_trainer(tmp_path, dataset, max_batches=BLOCK)
    model, bound = trainer.model, trainer.model.bound
    # learns nothing: a known number per image, on top of the base measure
    model.bound = lambda x, log_base, noise: log_base + 1e4 * x[:, 0] + 0 * bound(x, log_base, noise)
    expected = 1e4 * dataset.validation[:, 0] + model.log_base(dataset.validation).numpy()
    np.testing.assert_allclose(trainer.run()[0]["val_ll"], expected.mean(dtype=np.float64), rtol=1e-5)


# --- NaN --------------------------------------------------------------------------------------------------------------

def assert_stops_at_last_good_state(trainer, message, step):
    """The run fails with the message, and goes back to the state after `step` batches, in memory and on disk."""
    states = {0: weights_of(trainer)}
    with pytest.raises(NonFiniteError) as error:
        trainer.run(lambda row: states.update({row["batch"]: weights_of(trainer)}))
    assert str(error.value) == f"{message}; the last good checkpoint is {trainer.path}"
    assert_equal_weights(weights_of(trainer), states[step])
    arrays, state = checkpoint.restore(trainer.path)
    assert state["step"] == step and len(state["history"]) == step // BLOCK
    assert_equal_weights(arrays["weights"], states[step])
    resumed = make_trainer(trainer.workdir)
    resumed.resume()
    assert (resumed.step, resumed.history) == (step, trainer.history)
    assert_equal_weights(weights_of(resumed), states[step])
    assert len(resumed.optimizer.variables) == len(arrays["optimizer"])
    assert int(resumed.optimizer.iterations) == step


@pytest.mark.parametrize("batch", [0, 2, 3, 4, 5])
def test_nan_in_an_image(tmp_path, eagerly, batch):
    dataset = make_dataset()
    trainer = make_trainer(tmp_path, dataset)
    image = trainer.stream(batch, 1)[0, 2]  # the first pass is six batches, so this image is in no batch before
    dataset.train[image, 77] = np.nan
    trainer = make_trainer(tmp_path, dataset)
    assert_stops_at_last_good_state(trainer, f"the image batch is not finite in batch {batch}",
                                    step=BLOCK * (batch // BLOCK))


@pytest.mark.parametrize("batch", [1, 4])
def test_nan_in_a_weight(tmp_path, eagerly, batch):
    """A weight goes wrong in the update after `batch`, and is found by the next one."""
    trainer = make_trainer(tmp_path)
    update, victim = trainer.optimizer.apply_gradients, trainer.model.trainable_variables[3]

    def poisoned(gradients_and_variables):
        update(gradients_and_variables)
        if int(trainer.optimizer.iterations) == batch + 1:
            victim.assign(np.full(victim.shape, np.nan))
    trainer.optimizer.apply_gradients = poisoned
    assert_stops_at_last_good_state(trainer, f"weight {victim.path} is not finite in batch {batch + 1}",
                                    step=BLOCK * (batch // BLOCK))


@pytest.mark.parametrize("batch", [0, 3, 4])
def test_nan_in_a_gradient(tmp_path, eagerly, batch):
    """The bound is finite and its gradient is not: the batch before the first NaN bound is to blame."""
    dataset = make_dataset()
    marked = epochs(NUM_TRAIN, BATCH_SIZE, 0)(batch, 1)[0, 0]
    dataset.train[marked, 0] = 0.12345
    trainer = make_trainer(tmp_path, dataset)
    model, bound = trainer.model, trainer.model.bound
    victim = model.trainable_variables[0]

    def broken(x, log_base, noise):
        value = bound(x, log_base, noise)
        if np.any(x.numpy()[:, 0] == np.float32(0.12345)):
            value += tf.sqrt(0 * tf.reduce_sum(victim))  # 0, of gradient 0/0
        return value
    model.bound = broken
    assert_stops_at_last_good_state(trainer, f"the gradient of {victim.path} is not finite in batch {batch}",
                                    step=BLOCK * (batch // BLOCK))


def test_nan_in_the_validation(tmp_path, eagerly):
    trainer = make_trainer(tmp_path)
    validate = trainer.validate
    trainer.validate = lambda step: validate(step) * (np.nan if step == 2 * BLOCK else 1)
    assert_stops_at_last_good_state(trainer, f"the validation bound is nan after batch {2 * BLOCK}", step=BLOCK)


def test_nan_is_found_in_compiled_training(tmp_path):
    dataset = make_dataset()
    dataset.train[epochs(NUM_TRAIN, BATCH_SIZE, 0)(4, 1)[0, 5], 0] = np.nan
    assert_stops_at_last_good_state(make_trainer(tmp_path, dataset), "the image batch is not finite in batch 4", BLOCK)


# --- learning ---------------------------------------------------------------------------------------------------------

def test_bound_rises_on_real_images(tmp_path):
    """256 batches of MNIST take a small SPVAE from thousands of nats below zero to above a thousand."""
    dataset = load_dataset("mnist_sample", "continuous")
    trainer = make_trainer(tmp_path, dataset, hidden_units=8, latent_dim=4, delta=7, batch_size=128, train_samples=5,
                           validate_every=128, max_batches=256, protocol="released")
    before = tf.reduce_mean(trainer.model(dataset.validation[:200], seed=0))
    first, second = trainer.run()
    after = tf.reduce_mean(trainer.model(dataset.validation[:200], seed=0))
    assert before < 0 and after > before + 1500 and after > 1500
    assert first["train_ll"] < first["val_ll"] < second["val_ll"]
    np.testing.assert_allclose(after, second["val_ll"], atol=100)
