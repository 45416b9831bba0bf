"""Models written and read back: equal answers in a new process, served without the package, in other precisions."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import spvae_tf
from spvae_tf.errors import InputError
from spvae_tf.ops.noise import make_seed
from spvae_tf.queries import serving
from spvae_tf.training import configuration, data
from spvae_tf.training.run import Run

X = np.random.default_rng(0).integers(0, 256, [4, 8]).astype(np.float32) / 255
SEEN = np.random.default_rng(1).random([4, 8]) < 0.5
UNKNOWN = np.where(SEEN, X, np.float32(np.nan))


def make(likelihood="continuous"):
    return spvae_tf.build_model("SPVAE", (2, 4), likelihood, hidden_units=4, latent_dim=2, seed=3, delta=2)


def answers(model):
    return {"log_prob": model.log_prob(UNKNOWN, 20, SEEN, seed=4), "inpaint": model.inpaint(UNKNOWN, SEEN, seed=5),
            "sample": model.sample(5, mean=False, seed=6), "embed": model.embed(X)}


IN_A_NEW_PROCESS = """
import sys
import numpy as np
import tensorflow as tf

folder, arrays = sys.argv[1], dict(np.load(sys.argv[1] + "/asked.npz"))
served = tf.saved_model.load(folder + "/served")
images = dict(x=tf.constant(arrays["x"]), observed=tf.constant(arrays["seen"]), seed=tf.constant(arrays["seed"]))
found = {name: served.signatures[name](**images)["output_0"].numpy() for name in ("log_prob", "inpaint")}
for n in (0, 3):
    found[f"sample {n}"] = served.signatures["sample"](n=tf.constant(n), seed=tf.constant(arrays["seed"]))["output_0"]
try:
    served.signatures["log_prob"](**images | {"x": images["x"] + 1})
except tf.errors.InvalidArgumentError as error:
    found["refusal"] = "must lie in [0, 1]" in str(error)
for name, bad in (("shapes", lambda: served.signatures["log_prob"](**images | {"observed": images["observed"][:1]})),
                  ("count", lambda: served.signatures["sample"](n=tf.constant(-1), seed=images["seed"]))):
    try:
        bad()
    except tf.errors.InvalidArgumentError as error:
        found[f"refusal of {name}"] = "must have the same shape" in str(error) or "must not be negative" in str(error)
assert not any(name.startswith("spvae_tf") for name in sys.modules)
np.savez(folder + "/served.npz", **found)

import keras
import spvae_tf
sys.path.insert(0, sys.argv[2])
from test_serving import answers
np.savez(folder + "/keras.npz", **answers(keras.models.load_model(folder + "/model.keras")))
np.savez(folder + "/run.npz", **answers(spvae_tf.load(folder + "/run")))
"""


@pytest.fixture(scope="module")
def new_process(tmp_path_factory):
    """A model and a run, written here and asked elsewhere: (the model, the run's model, {file: answers})."""
    folder = tmp_path_factory.mktemp("saved")
    model = make("tied_mixture")  # which has weights of its own
    model.likelihood.table.assign(np.random.default_rng(1).standard_normal(model.likelihood.table.shape))
    model.save(folder / "model.keras")
    serving.export(model, folder / "served", num_samples=20, batch_size=4)
    np.savez(folder / "asked.npz", x=UNKNOWN, seen=SEEN, seed=make_seed(7))
    rng = np.random.default_rng(2)
    np.savez(folder / "mine.npz", **{name: rng.random([20, 2, 4]) for name in ("x_train", "x_validation", "x_test")})
    config = configuration.make_config("VAE", str(folder / "mine.npz"), "discrete")
    config.update(dict(hidden_units=4, latent_dim=2, max_batches=2, validate_every=1, batch_size=4))
    run = Run(config, folder / "run")
    run.train()
    done = subprocess.run([sys.executable, "-c", IN_A_NEW_PROCESS, folder, Path(__file__).parent], capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return model, run.model, {name: dict(np.load(folder / f"{name}.npz")) for name in ("served", "keras", "run")}


@pytest.mark.parametrize("file", ["keras", "run"])
def test_saved_models_answer_alike_in_a_new_process(file, new_process):
    model, run, found = new_process
    for name, answer in answers(model if file == "keras" else run).items():
        np.testing.assert_array_equal(found[file][name], answer, err_msg=name)
    assert np.ptp(found[file]["log_prob"]) > 0.1


def test_a_saved_model_answers_without_the_package(new_process):
    """As many images as in its batches: answers as those of the model's own queries with the same seed."""
    model, _, found = new_process
    served = found["served"]
    np.testing.assert_allclose(served["log_prob"], model.log_prob(UNKNOWN, 20, SEEN, seed=7), rtol=1e-5)
    np.testing.assert_allclose(served["inpaint"], model.inpaint(UNKNOWN, SEEN, num_samples=20, seed=7), atol=1e-5)
    np.testing.assert_array_equal(served["inpaint"][SEEN], X[SEEN])
    np.testing.assert_allclose(served["sample 3"], model.sample(4, seed=7)[:3], atol=1e-5)
    assert served["sample 0"].shape == (0, 8)
    assert served["refusal"] and served["refusal of shapes"] and served["refusal of count"]


def test_a_served_model_takes_any_number_of_images():
    """Three batches of two, the last filled up, each with its own noise."""
    model = spvae_tf.build_model("VAE", (2, 4), "continuous", hidden_units=4, latent_dim=2)
    for variable in model.encoder.trainable_variables:  # so that q(z | x) covers p(z | x)
        variable.assign(0 * variable)
    served = serving.Served(model, num_samples=500, batch_size=2)
    x, seen = np.repeat(X[:1], 5, axis=0), np.repeat(SEEN[:1], 5, axis=0)
    value = served.log_prob(x, seen, make_seed(8)).numpy()
    assert value.shape == (5,) and len(np.unique(value)) == 5
    np.testing.assert_allclose(value, model.log_prob(x, 500, seen, seed=9), atol=0.5)
    assert served.inpaint(x[:0], seen[:0], make_seed(8)).shape == (0, 8)
    samples = served.sample(5, make_seed(8)).numpy()
    assert samples.shape == (5, 8) and len(np.unique(samples[:, 0])) == 5


def test_what_a_model_is_exported_on_does_not_matter(monkeypatch):
    answers = []
    for on_gpu in (False, True):
        monkeypatch.setattr("spvae_tf.ops.device.on_gpu", lambda: on_gpu)  # noqa: B023
        answers.append(serving.Served(make(), 2000, batch_size=2).log_prob(X, SEEN, make_seed(4)))
    np.testing.assert_array_equal(*answers)


def test_export_refuses_with_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path, options, message in ((tmp_path / "file", {}, "exists already"),
                                   (tmp_path / "file" / "below", {}, "cannot write"),
                                   (tmp_path / "a[1]", {}, r"a\[1\] has '\['; TensorFlow .* loads no model from them"),
                                   (tmp_path / "a?" / "b", {}, "has '.'; TensorFlow takes paths with"),
                                   (tmp_path / "new", {"num_samples": 0}, "num_samples is 0"),
                                   (tmp_path / "new", {"batch_size": -1}, "batch_size is -1")):
        with pytest.raises(InputError, match=message) as caught:
            serving.export(make(), path, **options)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def policy():
    """A function that sets Keras' dtype policy; float32 is back afterwards."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def test_float64(policy):
    """The same seed in twice the precision: the same weights, the same noise, hence the same answers to float32's."""
    single = make()
    policy("float64")
    double = make()
    for a, b in zip(double.trainable_variables, single.trainable_variables):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == "float64" and b.dtype == "float32"
    found, expected = answers(double), answers(single)
    for name in ("log_prob", "inpaint", "embed", "sample"):
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(double.sample(5, seed=6), single.sample(5, seed=6), atol=1e-5)
    assert (found["log_prob"].numpy() != expected["log_prob"].numpy()).any()  # computed in another precision


@pytest.mark.parametrize("name, likelihood", [("Conv-SPVAE", "discrete"), ("Conv-VAE", "continuous")])
def test_a_seed_gives_the_same_weights_and_draws_in_float64(name, likelihood, policy):
    def build():
        model = spvae_tf.build_model(name, (6, 6), likelihood, hidden_units=4, latent_dim=2, seed=3)
        return [model.sample(4, mean=False, seed=1), *model.trainable_variables]
    single = build()
    policy("float64")
    for a, b in zip(build(), single, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_run_of_another_precision_is_refused(tmp_path, policy):
    images = np.random.default_rng(0).random([8, 2, 4])
    np.savez(tmp_path / "mine.npz", **{f"x_{split}": images for split in data.SPLITS})
    config = configuration.make_config("VAE", str(tmp_path / "mine.npz"), "continuous")
    config.update(dict(hidden_units=2, latent_dim=1, max_batches=1, validate_every=1, batch_size=4))
    Run(config, tmp_path / "run").train()
    policy("float64")
    with pytest.raises(InputError, match="holds float32, the model float64; call keras.config.set_dtype_policy"):
        spvae_tf.load(tmp_path / "run")


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
def test_low_precision_is_refused(name, policy):
    policy(name)
    with pytest.raises(InputError, match=f"{name}; log-densities need float32 or float64$"):
        make()


def test_a_model_of_another_precision_is_refused_when_read(tmp_path, policy):
    policy("float64")
    make().save(tmp_path / "double.keras")
    policy("float32")
    with pytest.raises(Exception, match="call keras.config.set_dtype_policy.'float64'. first"):
        keras.models.load_model(tmp_path / "double.keras")
    policy("float64")
    assert keras.models.load_model(tmp_path / "double.keras").log_prob(X, 2).dtype == np.float64
