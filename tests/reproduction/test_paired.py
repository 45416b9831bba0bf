"""Means, standard errors and paired differences from the values of every test image, against NumPy and the table."""

import command_line
import numpy as np
import pytest
from rows import make_row, name_of, write_runs

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.reproduction import compare, paired

IMAGES = 10_000  # else a run is partial


def write_tested(folder, *rows, **changes_of_values):
    """Runs whose tests follow from values that are easy for every model on the same images; returns those by name."""
    easiness, values, tested = np.random.default_rng(0).normal(0, 300, IMAGES), {}, []
    for n, row in enumerate(rows):
        found = np.float32(row["test_ll"] + easiness + np.random.default_rng(n + 1).normal(0, 20, IMAGES))
        tested.append(row | dict(test_ll=round(float(np.mean(found, dtype=np.float64)), 3),
                                 test_ll_stderr=round(float(np.std(found, ddof=1, dtype=np.float64)) / 100, 3)))
        values[name_of(row)] = np.float64(found)
        arrays = dict(log_prob=found, k=5000, seed=0) | changes_of_values
        files.write_npz(folder / "values" / f"{name_of(row)}.npz", **arrays)
    write_runs(folder, *tested)
    return values


def test_differences_are_paired_by_image_and_seed(tmp_path):
    rows = [make_row(model, seed=seed) for model, seeds in (("SPVAE", (0, 1, 2)), ("VAE", (1, 2, 3))) for seed in seeds]
    values = write_tested(tmp_path / "paper", *(row | dict(protocol="paper") for row in rows))
    _, *lines = paired.differences(compare.folders(tmp_path))
    assert [line[:4] for line in lines] == [["mnist, continuous", "SPVAE − VAE", "paper", seeds]
                                            for seeds in ("1", "2", "1, 2")]
    one, other = (np.array([values[f"{model}-mnist-continuous-{hidden}-{seed}"] for seed in (1, 2)])
                  for model, hidden in (("SPVAE", 30), ("VAE", 300)))
    for line, a, b in zip(lines, [*one, one.mean(axis=0)], [*other, other.mean(axis=0)], strict=True):
        paired_error, unpaired = np.std(a - b, ddof=1) / 100, np.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / IMAGES)
        assert line[4:] == [f"{np.mean(a - b):+.1f}", f"{paired_error:.1f}", f"{unpaired:.1f}"]
        assert unpaired > 10 * paired_error


def test_other_sizes_partial_runs_and_earlier_images_have_no_difference(tmp_path):
    for n, change in enumerate((dict(hidden_units=7), dict(batches=4001), dict(preparation="earlier"))):
        write_tested(tmp_path / str(n), make_row(**change), make_row("VAE"))
        assert len(paired.differences({"released": tmp_path / str(n)})) == 1


def test_a_row_is_recomputed_from_its_values_alone(tmp_path):
    values = write_tested(tmp_path, make_row(), make_row("VAE"))
    lines, wrong = paired.recomputed({"released": tmp_path})
    assert not wrong and [line[0] for line in lines[1:]] == list(values)
    mean, stderr = (f"{f(values[lines[1][0]]):.3f}" for f in (np.mean, lambda v: np.std(v, ddof=1) / 100))
    assert lines[1][1:] == ["released", mean, mean, stderr, stderr]
    rows = compare.read(tmp_path)
    write_runs(tmp_path, *rows, make_row("Conv-VAE", test_ll_stderr=0.5))
    lines, wrong = paired.recomputed({"released": tmp_path})
    assert not wrong and lines[3] == ["Conv-VAE-mnist-continuous-64-0", "released", "—", "2907.000", "—", "0.500"]
    for change in (dict(test_ll=rows[0]["test_ll"] + 0.01), dict(test_ll_stderr=rows[0]["test_ll_stderr"] - 0.01)):
        write_runs(tmp_path, rows[0] | change, rows[1])
        assert paired.recomputed({"released": tmp_path})[1] == ["released, SPVAE-mnist-continuous-30-0"]


@pytest.mark.parametrize("change, why", [
    (dict(k=7), r"shape \(10000,\) and k = 7; its run was tested on 10000 images with k = 5000"),
    (dict(log_prob=np.zeros(3)), r"shape \(3,\) and k = 5000"), (dict(log_prob=np.zeros([2, 2])), r"shape \(2, 2\)")])
def test_values_of_another_test_are_errors(tmp_path, change, why):
    write_tested(tmp_path, make_row(), **change)
    with pytest.raises(InputError, match=f"SPVAE-mnist-continuous-30-0.npz has values of {why}"):
        paired.recomputed({"released": tmp_path})


def test_from_the_command_line(tmp_path):
    def run_script():
        return command_line.run("compare_to_paper.py", "--from_values", f"--results_dir={tmp_path}")

    write_runs(tmp_path, make_row(), make_row("VAE"))
    done = run_script()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{paired.NONE}\n", "")
    write_tested(tmp_path, make_row(), make_row("VAE"))
    done = run_script()
    assert done.returncode == 0 and "SPVAE − VAE" in done.stdout and not done.stderr
    spvae, vae = compare.read(tmp_path)
    write_runs(tmp_path, spvae, vae | dict(test_ll=2600.0))
    done = run_script()
    assert (done.returncode, done.stderr) == (1, "differs from its table: released, VAE-mnist-continuous-300-0\n")
    (tmp_path / "values" / "VAE-mnist-continuous-300-0.npz").write_bytes(b"PK")
    done = run_script()
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "not a readable .npz" in done.stderr
