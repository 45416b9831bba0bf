"""The linear probe against the normal equations, hidden halves against the model's own marginals, rows of the CSV."""

import numpy as np
import pytest

from spvae_tf import build_model, results, usefulness


def blobs(seed, count, shuffled=False):
    """Three classes of points in the plane, with labels that are not 0, 1, 2."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([3, 5, 9], count)
    centres = {3: (0, 0), 5: (4, 0), 9: (0, 4)}
    points = np.array([centres[label] for label in labels]) + rng.standard_normal([count, 2])
    return points, rng.permutation(labels) if shuffled else labels


def test_probe_separates_what_is_separable_and_nothing_else():
    assert usefulness.linear_probe(blobs(0, 300), blobs(1, 300), blobs(2, 2000)) > 0.9
    assert usefulness.linear_probe(blobs(0, 300, True), blobs(1, 300, True), blobs(2, 2000, True)) < 0.45


def test_probe_is_ridge_regression(monkeypatch):
    penalty = 0.1
    monkeypatch.setattr(usefulness, "PENALTIES", [penalty])
    (x, y), (z, wanted) = blobs(3, 40), blobs(4, 500)
    centred, targets = x - x.mean(axis=0), np.equal.outer(y, [3, 5, 9]).astype(float)
    scale = np.mean(np.linalg.eigvalsh(centred.T @ centred))
    weights = np.linalg.solve(centred.T @ centred + penalty * scale * np.eye(2), centred.T @ targets)
    guesses = np.array([3, 5, 9])[((z - x.mean(axis=0)) @ weights + targets.mean(axis=0)).argmax(axis=1)]
    assert usefulness.linear_probe((x, y), (z, wanted), (z, wanted)) == np.mean(guesses == wanted)


def test_penalty_is_chosen_by_validation_alone(monkeypatch):
    monkeypatch.setattr(usefulness, "PENALTIES", [1e-6, 1e6])
    train, test = blobs(5, 30), blobs(6, 400)
    own = usefulness.linear_probe(train, test, test)
    noise = (np.random.default_rng(7).standard_normal([400, 2]), test[1])
    assert usefulness.linear_probe(train, noise, test) <= own


def test_hidden_half_is_the_difference_of_two_marginals():
    model = build_model("SPVAE", (4, 4), "continuous", hidden_units=4, latent_dim=2, delta=2)
    x = np.random.default_rng(8).random([5, 16]).astype(np.float32)
    value, stderr = usefulness.hidden_half(model, x, "right", num_samples=50, seed=9)
    visible = np.tile([True, True, False, False], [5, 4])
    each = model.log_prob(x, 50, seed=9).numpy() - model.log_prob(x, 50, visible, seed=9).numpy()
    assert value == pytest.approx(each.mean(), rel=1e-4)
    assert stderr == pytest.approx(each.std(ddof=1) / np.sqrt(5), rel=1e-3)


def test_rows_are_replaced_not_doubled(tmp_path):
    path = tmp_path / "usefulness.csv"
    row = dict.fromkeys(usefulness.FIELDS, "a") | dict(seed=0, setting=100, value=0.5)
    usefulness.write(path, [row, row | dict(setting="left")])
    usefulness.write(path, [row | dict(value=0.75), row | dict(seed=1)])
    found = results.read_table(path)
    assert [(r["seed"], r["setting"], r["value"]) for r in found] == [(0, 100, 0.75), (0, "left", 0.5), (1, 100, 0.5)]
