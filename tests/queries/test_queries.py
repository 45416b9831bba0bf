"""All queries of the four models, and the document that lists them."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from small_models import images, mask

import spvae_tf
from spvae_tf.model.likelihoods import LIKELIHOODS

CELLS = [*itertools.product(["SPVAE", "VAE", "Conv-SPVAE", "Conv-VAE"], ["continuous", "discrete"]),
         *(("SPVAE", likelihood) for likelihood in LIKELIHOODS if likelihood not in ("continuous", "discrete")),
         ("Conv-VAE", "tied_mixture")]


@pytest.mark.slow
@pytest.mark.parametrize("name, likelihood", CELLS)
def test_every_query_of_the_models(name, likelihood):
    model = spvae_tf.build_model(name, (6, 5), likelihood, hidden_units=4, latent_dim=2, delta=3)
    x, observed = images(model), mask(model)
    unknown = np.where(observed, x, np.nan)
    assert np.isfinite(model.sample(3)).all() and np.isfinite(model.sample(3, mean=False)).all()
    for answer in (model.inpaint(unknown, observed), model.inpaint(unknown, observed, 2, False)[:, 0]):
        np.testing.assert_array_equal(answer.numpy()[observed], x[observed])
    for answer in (model.conditional_log_prob(x, ~observed, observed), model.posterior(unknown, observed=observed),
                   model.most_probable_tree(unknown, observed=observed), model.embed(x), model.reconstruct(x),
                   model.interpolate(x, x[::-1]), model.outlier_score(x), model.diagnose(unknown, 9, observed)):
        assert all(np.isfinite(part).all() and len(part) == 3 for part in tf.nest.flatten(answer))


def test_the_document_names_functions_that_exist():
    """Every `module.py`: `name`, … of docs/model.md."""
    text = (Path(__file__).parents[2] / "docs" / "model.md").read_text(encoding="utf-8")
    found = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", text)
    assert len(found) > 25
    for module, names in found:
        source = (Path(spvae_tf.__file__).parent / module).read_text(encoding="utf-8")
        for name in re.findall(r"\w+", names):
            assert re.search(rf"(def|class) {name}\b", source), (module, name)
