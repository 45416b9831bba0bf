"""What a Keras user tries first: predict, a tf.data pipeline, a batch of unknown size, fit, a functional model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import spvae_tf

X = np.float32(np.random.default_rng(0).integers(0, [[20], [60], [120], [180], [256]], [5, 36]) / 255)


@pytest.fixture(scope="module", params=[("SPVAE", "continuous"), ("Conv-VAE", "discrete")], ids=lambda p: p[0])
def model(request):
    return spvae_tf.build_model(request.param[0], (6, 6), request.param[1], hidden_units=4, latent_dim=2, delta=3)


def test_predict_of_arrays_and_pipelines(model):
    """Each image has its bound with k = 5, below but like `log_prob`, whatever batch it comes in."""
    expected = model.log_prob(X, 500)
    for data in (X, tf.data.Dataset.from_tensor_slices(X).batch(2)):
        found = [model.predict(data, batch_size=2 if data is X else None, verbose=0) for _ in range(9)]
        assert found[0].shape == (5,) and (found[0] != found[1]).any()  # the noise is fresh
        assert np.corrcoef(np.mean(found, axis=0), expected)[0, 1] > 0.5


def test_a_batch_of_unknown_size(model):
    call = tf.function(lambda x: model(x, seed=3), input_signature=[tf.TensorSpec([None, 36])])
    for x in (X, X[:1]):
        np.testing.assert_allclose(call(x), model(x, seed=3), rtol=1e-5)
    functional = keras.Model(inputs := keras.Input([36]), model(inputs))
    assert functional.predict(X, verbose=0).shape == (5,)


def test_a_generator_of_unknown_shape(model):
    batches = tf.data.Dataset.from_generator(lambda: iter([X[:2], X]), output_types=tf.float32)
    assert model.predict(batches, verbose=0).shape == (7,)


def test_images_are_checked_in_a_graph_too(model):
    with pytest.raises(tf.errors.InvalidArgumentError, match="they reach from"):
        model.predict(X + 1, verbose=0)
    if model.likelihood.name == "discrete":
        with pytest.raises(tf.errors.InvalidArgumentError, match="must be multiples of 1/255"):
            model.predict(X[:1] + 0.5 / 255, verbose=0)


def test_fit():
    model = spvae_tf.build_model("Conv-SPVAE", (6, 6), "discrete", hidden_units=4, latent_dim=2, delta=3)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=lambda _, bound: -tf.reduce_mean(bound))
    losses = model.fit(X, np.zeros(5), batch_size=2, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
