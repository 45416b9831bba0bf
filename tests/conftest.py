"""Fixtures that several test files share."""

import pytest
import tensorflow as tf

import spvae_tf

spvae_tf.configure()


@pytest.fixture(scope="module")
def eagerly():
    """Models this small run quicker than they compile."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
