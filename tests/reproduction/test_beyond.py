"""The linear probe against the normal equations, bounds against the model's own queries, rows of the CSV."""


import command_line
import numpy as np
import pytest

from spvae_tf import build_model, files
from spvae_tf.errors import InputError
from spvae_tf.reproduction import beyond, report
from spvae_tf.training import configuration, data
from spvae_tf.training.run import Run


def blobs(seed, count, shuffled=False):
    """Three classes of points in the plane, with labels that are not 0, 1, 2."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([3, 5, 9], count)
    centres = {3: (0, 0), 5: (4, 0), 9: (0, 4)}
    points = np.array([centres[label] for label in labels]) + rng.standard_normal([count, 2])
    return points, rng.permutation(labels) if shuffled else labels


def test_probe_separates_what_is_separable_and_nothing_else():
    assert beyond.linear_probe(blobs(0, 300), blobs(2, 2000)) > 0.9
    assert beyond.linear_probe(blobs(0, 300, True), blobs(2, 2000, True)) < 0.45


def ridge(x, y, penalty):
    """Ridge regression with an intercept by the normal equations: a function of points to indicators of 3, 5, 9."""
    mean, targets = x.mean(axis=0), np.equal.outer(y, [3, 5, 9]).astype(float)
    weights = np.linalg.solve((x - mean).T @ (x - mean) + penalty * np.eye(x.shape[1]),
                              (x - mean).T @ (targets - targets.mean(axis=0)))
    return lambda z: (z - mean) @ weights + targets.mean(axis=0)


@pytest.mark.parametrize("features", [2, 30])
def test_probe_is_ridge_regression_chosen_by_leaving_images_out(features, monkeypatch):
    """Every penalty tried on every image with the others alone, with more features than images too."""
    (x, y), (z, wanted) = blobs(3, 25), blobs(4, 500)
    rng = np.random.default_rng(0)
    x, z = (np.hstack([p, rng.standard_normal([len(p), features - 2])]) for p in (x, z))
    penalties = beyond.PENALTIES * np.mean(np.linalg.svd(x - x.mean(axis=0), compute_uv=False)**2)
    others = [np.arange(len(x)) != n for n in range(len(x))]
    errors = [np.mean([(ridge(x[o], y[o], p)(x[~o]) - np.equal.outer(y[~o], [3, 5, 9]))**2 for o in others])
              for p in penalties]
    best = int(np.argmin(errors))
    assert 0 < best < len(errors) - 1 and np.ptp(errors) > 0.01  # and not the first or the last by chance
    expected = np.mean(np.array([3, 5, 9])[ridge(x, y, penalties[best])(z).argmax(axis=1)] == wanted)
    assert beyond.linear_probe((x, y), (z, wanted)) == expected
    monkeypatch.setattr(beyond, "PENALTIES", beyond.PENALTIES[-1:])
    assert beyond.linear_probe((x, y), (z, wanted)) != expected


def test_probes_learn_from_disjoint_parts():
    train, test = blobs(5, 130), blobs(6, 400)
    expected = [beyond.linear_probe([a[start:start + 30] for a in train], test) for start in (0, 30, 60, 90)]
    np.testing.assert_array_equal(beyond.probe(train, test, 30), expected)
    assert len(beyond.probe(train, test, 10)) == beyond.PROBES and len(beyond.probe(train, test, 131)) == 0


def test_bounds_are_the_models_own_queries():
    model = build_model("SPVAE", (4, 4), "continuous", hidden_units=4, latent_dim=2, delta=2)
    x = np.random.default_rng(8).random([5, 16]).astype(np.float32)
    values = beyond.bounds(model, x, num_samples=50, refinements=2)
    assert list(values) == [(beyond.IMAGE, beyond.AMORTISED), (beyond.IMAGE, beyond.FITTED),
                            *((beyond.HALF, half) for half in ("left", "right", "top", "bottom"))]
    for setting, steps in ((beyond.AMORTISED, 0), (beyond.FITTED, 2)):
        expected = model.log_prob(x, 50, seed=0, refinements=steps)
        np.testing.assert_allclose(values[beyond.IMAGE, setting], expected, atol=1e-5)
    visible = np.tile([True, True, False, False], [5, 4])  # the right half is hidden
    expected = model.conditional_log_prob(x, ~visible, visible, 50, seed=0, refinements=2)
    np.testing.assert_allclose(values[beyond.HALF, "right"], expected, atol=1e-5)


def test_rows_are_replaced_not_doubled(tmp_path):
    path = tmp_path / "usefulness.csv"
    row = dict.fromkeys(beyond.FIELDS, "a") | dict(seed=0, setting=100, value=0.5)
    beyond.write(path, [row, row | dict(setting="left")])
    beyond.write(path, [row | dict(value=0.75), row | dict(seed=1)])
    found = files.read_table(path)
    assert [(r["seed"], r["setting"], r["value"]) for r in found] == [(0, 100, 0.75), (0, "left", 0.5), (1, 100, 0.5)]
    beyond.write(path, [row | change for change in (dict(train_fraction=0.1), dict(hidden_units=8),
                                                        dict(changes="patience=60"))])
    assert len(beyond.read(path)) == 6  # another part of the images, other sizes and settings are other runs


def test_csv_with_other_columns_is_refused(tmp_path):
    path = tmp_path / "usefulness.csv"
    files.write_table(path, [dict(model="SPVAE", value=1)], ("model", "value"))
    before = path.read_bytes()
    with pytest.raises(InputError, match="has the columns model, value; they must be model, dataset, "):
        beyond.write(path, [dict.fromkeys(beyond.FIELDS, "a")])
    assert path.read_bytes() == before


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished tiny run on images with labels, and mine.npz; unlabelled.npz lacks those of the training set."""
    folder = tmp_path_factory.mktemp("useful")
    rng = np.random.default_rng(0)
    arrays = {f"x_{split}": rng.random([40, 4, 4]) for split in data.SPLITS}
    np.savez(folder / "unlabelled.npz", **arrays, y_test=rng.integers(0, 3, 40))
    np.savez(folder / "mine.npz", **arrays, y_train=np.arange(40) % 3, y_test=rng.integers(0, 3, 40))
    for name in ("mine", "unlabelled"):
        config = configuration.make_config("SPVAE", str(folder / f"{name}.npz"), "discrete")
        config.update(dict(hidden_units=3, latent_dim=2, max_batches=1, validate_every=1, batch_size=4, delta=2))
        config.seed = 4
        Run(config, folder / name).train()
    return folder


def test_figures_of_a_run(workdir):
    run = Run.open(workdir / "mine")
    rows = beyond.measure(run, num_samples=20, num_images=10, refinements=6, labels=(10, 25, 100))
    model, test = run.model, run.dataset.test
    assert [(row["task"], row["setting"], row["repeats"]) for row in rows] == [
        (beyond.IMAGE, beyond.AMORTISED, 1), (beyond.IMAGE, beyond.FITTED, 1),
        *((beyond.HALF, half, 1) for half in ("left", "right", "top", "bottom")),
        *((beyond.PROBE + kind, n, r) for kind in ("embedding", "pixels") for n, r in ((10, 4), (25, 1)))]
    for k, steps, field in ((20, 6, "value"), (10, 3, "value_at_half")):
        for row, values in zip(rows, beyond.bounds(model, test[:10], k, steps).values()):
            assert row[field] == pytest.approx(values.mean(), abs=1e-3)
            if field == "value":
                assert row["stderr"] == pytest.approx(values.std(ddof=1) / np.sqrt(10), abs=1e-3)
    assert all(row["seed"] == 4 and 0 <= row["value"] <= 1 for row in rows[6:])
    assert {row["changes"] for row in rows} == {"batch_size=4, delta=2, validate_every=1, max_batches=1"}
    shown = [row | dict(preparation="authors") for row in rows]
    lines = report.usefulness(shown + [row | dict(seed=5, value=row["value"] + 0.5) for row in shown])
    assert lines[0] == ["data, protocol", "task", "setting", "SPVAE"] and len(lines) == 1 + len(rows)
    assert lines[1][1:3] == [beyond.IMAGE, beyond.AMORTISED]
    assert lines[1][3] == f"{rows[0]['value'] + 0.25:.1f} ± 0.4 (2)"
    assert lines[-1][2:] == ["25 labels", f"{100 * rows[-1]['value'] + 25:.1f} % ± 35.4 (2)"]


def test_images_without_labels_are_an_error_where_labels_are_needed(workdir):
    unlabelled = Run.open(workdir / "unlabelled")
    with pytest.raises(InputError, match="unlabelled has no labels"):
        beyond.measure(unlabelled)
    rows = beyond.measure(unlabelled, num_samples=4, num_images=10, refinements=2, halves=(), labels=())
    assert [row["setting"] for row in rows] == [beyond.AMORTISED, beyond.FITTED]


def test_command_line(workdir, tmp_path):
    def run(*flags):
        return command_line.run("usefulness.py", f"--out={tmp_path / 'useful.csv'}", "--num_samples=4",
                                "--num_images=10", "--refinements=2", *flags)

    done = run("--bounds_only", f"--workdirs={workdir / 'mine'},{workdir / 'unlabelled'}")
    assert done.returncode == 0, done.stderr
    found = beyond.read(tmp_path / "useful.csv")
    assert [(row["dataset"], row["setting"]) for row in found] == [
        (name, setting) for name in ("mine", "unlabelled") for setting in (beyond.AMORTISED, beyond.FITTED)]
    assert str(found[0]["value"]) in done.stdout and "100 % of the images, seed 4: log p(image)" in done.stdout
    refused = run(f"--workdirs={tmp_path}")
    assert refused.returncode == 2 and refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1
    assert beyond.read(tmp_path / "useful.csv") == found
