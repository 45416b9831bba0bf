"""scripts/infer.py and what it calls: images in files in, answers in files out, and one line for what goes wrong."""

import csv
import os
import subprocess
import sys
import zipfile

import command_line
import numpy as np
import odd_pictures
import pytest
import tensorflow as tf

import spvae_tf
from spvae_tf import infer
from spvae_tf.errors import InputError
from spvae_tf.training import configuration, data
from spvae_tf.training.run import Run

SHAPE = (4, 8)


def write_png(path, image):
    path.write_bytes(tf.io.encode_png(image if image.ndim == 3 else image[..., None]).numpy())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished tiny run in run/, three pictures in pictures/ and the same in pictures.npz."""
    folder = tmp_path_factory.mktemp("infer")
    rng = np.random.default_rng(0)
    arrays = {f"x_{split}": rng.integers(0, 256, [20, *SHAPE], np.uint8) for split in data.SPLITS}
    np.savez(folder / "mine.npz", **arrays)
    config = configuration.make_config("SPVAE", str(folder / "mine.npz"), "discrete")
    config.update(dict(hidden_units=4, latent_dim=2, max_batches=1, validate_every=1, batch_size=4, delta=4))
    Run(config, folder / "run").train()
    (folder / "pictures").mkdir()
    rgb = rng.integers(0, 256, [3, *SHAPE, 3], np.uint8)
    grey = data.luma(rgb)
    for number in range(2):
        write_png(folder / "pictures" / f"{number}.png", rgb[number])
    write_png(folder / "pictures" / "grey.png", grey[2])
    np.savez(folder / "pictures.npz", x=grey)
    return folder


def run(folder, *arguments, workdir="run"):
    done = command_line.run("infer.py", f"--workdir={folder / workdir}", *arguments)
    return done.returncode, done.stdout, done.stderr


def test_inpainting_pictures(folder, tmp_path):
    seen = np.random.default_rng(1).random(SHAPE) < 0.5
    np.savez(tmp_path / "mask.npz", observed=seen)
    status, out, err = run(folder, f"--out={tmp_path / 'out'}", f"--images={folder / 'pictures'}", "inpaint",
                           f"--mask={tmp_path / 'mask.npz'}", "--num_draws=2", "--num_samples=7", "--seed=3")
    assert status == 0, err
    assert out.split() == [str(tmp_path / "out" / f"inpaint.{kind}") for kind in ("npz", "png")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["inpaint.npz", "inpaint.png"]
    found = np.load(tmp_path / "out" / "inpaint.npz")
    assert list(found["names"]) == ["0.png", "1.png", "grey.png"]
    x, _, observed, _ = infer.read_images(folder / "pictures.npz", SHAPE, "discrete", "mine.npz",
                                          mask=str(tmp_path / "mask.npz"))
    np.testing.assert_array_equal(observed, np.tile(seen.reshape(1, -1), [3, 1]))
    np.testing.assert_array_equal(found["mean"][:, seen], x.reshape(-1, *SHAPE)[:, seen])
    model = spvae_tf.load(folder / "run")
    np.testing.assert_array_equal(found["mean"].reshape(3, -1), model.inpaint(x, observed, num_samples=7, seed=3))
    np.testing.assert_array_equal(found["draws"].reshape(3, 2, -1),
                                  model.inpaint(x, observed, 2, num_samples=7, seed=3))
    grid = tf.io.decode_png((tmp_path / "out" / "inpaint.png").read_bytes()).numpy()
    scale, gap = infer.SCALE, infer.GAP
    assert grid.shape == (scale * (5 * (4 + gap) - gap), scale * (3 * (8 + gap) - gap), 3)
    np.testing.assert_array_equal(grid[1:scale * 4:scale, 1:scale * 8:scale, 0], np.rint(255 * x[0].reshape(SHAPE)))
    assert (grid[scale * 4:scale * (4 + gap)] == 255).all()


def test_answers_without_pictures_are_about_the_test_set(folder, tmp_path):
    model, test = spvae_tf.load(folder / "run"), Run.open(folder / "run").dataset.test
    status, _, err = run(folder, f"--out={tmp_path}", "score", "--num_images=5", "--num_samples=9")
    assert status == 0, err
    rows = list(csv.DictReader((tmp_path / "score.csv").open()))
    assert list(rows[0]) == ["image", "log_prob", "standard_error", "num_samples", "levelled_off",
                             "effective_sample_size", "bits_per_dimension"]
    for row in rows:
        assert float(row["bits_per_dimension"]) == pytest.approx(-float(row["log_prob"]) / 32 / np.log(2), rel=1e-6)
    assert all(1 <= float(row["effective_sample_size"]) <= 9.001 for row in rows)
    report = model.diagnose(test[:5], 9, seed=0)
    for row, log_prob, error in zip(rows, report.log_prob.numpy(), report.standard_error.numpy(), strict=True):
        assert float(row["log_prob"]) == pytest.approx(log_prob, rel=1e-6)
        assert float(row["standard_error"]) == pytest.approx(error, rel=1e-4)
    np.testing.assert_array_equal(np.load(tmp_path / "score.npz")["heat"].reshape(5, -1),
                                  model.outlier_score(test[:5], 9, seed=0).heat)


def test_the_other_answers(folder, tmp_path):
    model = spvae_tf.load(folder / "run")
    x, names, *_ = infer.read_images(folder / "pictures.npz", SHAPE, "discrete", "mine.npz")
    files = [*infer.sample(model, tmp_path, 5, mean=False, seed=1), *infer.embed(model, tmp_path, x, names, 5),
             *infer.posterior(model, tmp_path, x, names, 5, seed=1)]
    assert [file.name for file in files] == ["sample.npz", "sample.png", "embed.npz", "posterior.npz", "posterior.png",
                                             "posterior.csv"]
    assert sorted(files) == sorted(tmp_path.iterdir())
    np.testing.assert_array_equal(np.load(files[0])["x"].reshape(5, -1), model.sample(5, False, seed=1))
    grid = tf.io.decode_png(files[1].read_bytes()).numpy()[..., 0][::infer.SCALE, ::infer.SCALE]
    assert grid.shape == (2 * 4 + infer.GAP, 3 * 8 + 2 * infer.GAP)  # five pictures, and a white one
    assert (grid[-4:, -8:] == 255).all() and (grid[-4:, -18:-10] < 255).any()
    np.testing.assert_array_equal(np.load(files[2])["features"], model.embed(x, 5, seed=0))
    states, arrays = model.posterior(x, 5, seed=1), np.load(files[3])
    np.testing.assert_array_equal(arrays["leaves"], states.leaves)
    np.testing.assert_array_equal(arrays["children_0"], states.children[0])
    rows = list(csv.DictReader(files[5].open()))
    assert list(rows[0]) == ["image", "leaf_0_0", "leaf_0_1", "leaf_1_0", "leaf_1_1"]
    assert all(float(row["leaf_1_0"]) + float(row["leaf_1_1"]) == pytest.approx(1, abs=1e-5) for row in rows)


def test_as_many_answers_as_images(folder, tmp_path):
    """Of a user's images all; of the test set, and of new images, what --num_images says."""
    x = np.random.default_rng(3).integers(0, 256, [70, *SHAPE], np.uint8)
    np.savez(tmp_path / "many.npz", x=x)
    commands = {"posterior": [f"--images={tmp_path / 'many.npz'}", "--num_samples=2"],
                "sample": ["--pixels=draw", "--num_images=3", "--seed=5"]}
    done = [run(folder, f"--out={tmp_path}", command, *flags) for command, flags in commands.items()]
    assert all(status == 0 for status, _, _ in done), done
    assert len(list(csv.DictReader((tmp_path / "posterior.csv").open()))) == 70
    np.testing.assert_array_equal(np.load(tmp_path / "sample.npz")["x"].reshape(3, -1),
                                  spvae_tf.load(folder / "run").sample(3, mean=False, seed=5))


def test_refuses_a_folder_that_cannot_be_made(folder):
    with pytest.raises(InputError, match="cannot write"):
        infer.embed(spvae_tf.build_model("VAE", SHAPE, "discrete", hidden_units=1, latent_dim=1), folder / "mine.npz",
                      np.zeros([1, 32], np.float32), ["0"], 1)


def test_pictures_are_prepared_like_the_training_images(folder):
    """The same from .png and .npz; the noise of a continuous likelihood is that of the seed."""
    from_png, names, *_ = infer.read_images(folder / "pictures", SHAPE, "discrete", "mine.npz")
    from_npz, numbers, observed, _ = infer.read_images(folder / "pictures.npz", SHAPE, "discrete", "mine.npz")
    np.testing.assert_array_equal(from_png, from_npz)
    assert observed.all() and observed.shape == from_npz.shape and names == ["0.png", "1.png", "grey.png"]
    assert numbers == ["0", "1", "2"]
    np.testing.assert_array_equal(from_npz, data.prepare(np.load(folder / "pictures.npz")["x"], "pictures.npz"))
    noisy = [infer.read_images(folder / "pictures", SHAPE, "continuous", "mine.npz", seed=seed)[0]
             for seed in (0, 0, 1)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert 1e-4 < np.abs(noisy[0] - from_png).mean() < 0.01 < np.abs(noisy[0] - noisy[2]).max() * 10


@pytest.mark.parametrize("hole", [1.0, 0.0, np.nan])
def test_hidden_pixels_do_not_matter(hole, tmp_path):
    """Whatever stands at them, images are scaled by their observed pixels."""
    x = np.random.default_rng(2).uniform(0.3, 0.6, [2, *SHAPE])
    x[:, :, 4:] = hole
    np.savez(tmp_path / "x.npz", x=x)
    found, _, observed, _ = infer.read_images(tmp_path / "x.npz", SHAPE, "discrete", "mine.npz", mask="right")
    seen = x[:, :, :4].reshape(2, -1)
    expected = (seen - seen.min(axis=1, keepdims=True)) / np.ptp(seen, axis=1)[:, None]
    np.testing.assert_allclose(found[observed].reshape(2, -1), expected, atol=0.5 / 255 + 1e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("mask, hidden", [("left", np.s_[:, :4]), ("right", np.s_[:, 4:]), ("top", np.s_[:2]),
                                          ("bottom", np.s_[2:])])
def test_masks_of_halves(mask, hidden):
    observed = infer.read_mask(mask, 2, SHAPE).reshape(2, *SHAPE)
    assert not observed[0][hidden].any() and observed.sum() == 2 * 16


def test_refuses_files_with_one_line(folder, tmp_path):
    np.savez(tmp_path / "ints.npz", observed=np.ones(SHAPE, int), x=np.zeros([2, 5, 5], np.uint8))
    np.savez(tmp_path / "short.npz", observed=np.ones([3, *SHAPE], bool), y=np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    for name, shapes in (("empty", []), ("sizes", [(8, 4), (8, 4)]), ("damaged", [])):
        (tmp_path / name).mkdir()
        for number, shape in enumerate(shapes):
            write_png(tmp_path / name / f"{number}.png", np.zeros(shape, np.uint8))
    with zipfile.ZipFile(tmp_path / "foreign.npz", "w") as archive:
        archive.writestr("x", "no array")
    (tmp_path / "damaged" / "a.png").write_bytes((folder / "pictures" / "0.png").read_bytes()[:60])
    images = lambda name: infer.read_images(tmp_path / name, SHAPE, "discrete", "mine.npz")  # noqa: E731
    for refused, message in ((lambda: images("none"), "no such file or folder"),
                             (lambda: images("text.npz"), "not a readable .npz"),
                             (lambda: images("short.npz"), "array 'x' is missing"),
                             (lambda: images("foreign.npz"), "array 'x' cannot be read"),
                             (lambda: images("ints.npz"), "5×5 pixels; the model takes 4×8"),
                             (lambda: images("empty"), "no picture that can be read"),
                             (lambda: images("sizes"), "8×4 pixels where the model takes 4×8: 0.png, 1.png"),
                             (lambda: images("damaged"), "damaged (OSError): a.png"),
                             (lambda: infer.read_mask("middle", 2, SHAPE), "mask is 'middle'"),
                             (lambda: infer.read_mask(str(tmp_path / "ints.npz"), 2, SHAPE), "'observed' is int64"),
                             (lambda: infer.read_mask(str(tmp_path / "short.npz"), 2, SHAPE), "shape (3, 4, 8)")):
        with pytest.raises(InputError) as caught:
            refused()
        assert message in str(caught.value) and "\n" not in str(caught.value)


def test_bad_commands_are_one_line_and_write_nothing(folder, tmp_path):
    cases = [(("paint",), "'paint' is no command; it must be one of sample, inpaint"),
             (("sample", "score"), "'sample score' is no command"), (("inpaint", "--mask=middle"), "mask is 'middle'"),
             (("score", "--num_images=5000"), "--num_images is 5000; the test set has "),
             (("embed", "--num_images=4", f"--images={folder / 'pictures'}"), "--num_images is 4; ")]

    for arguments, message in cases:
        status, _, err = run(folder, f"--out={tmp_path / 'out'}", *arguments)
        lines = err.strip().splitlines()
        assert status == 2 and len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0], err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_odd_files_is_scored_and_every_file_accounted_for(tmp_path):
    """In a C locale with its output piped, as in a cron job."""
    images = np.random.default_rng(0).integers(0, 256, [9, *odd_pictures.SHAPE], np.uint8)
    np.savez(tmp_path / "mine.npz", **{f"x_{split}": images for split in data.SPLITS})
    config = configuration.make_config("VAE", str(tmp_path / "mine.npz"), "discrete")
    config.update(dict(hidden_units=2, latent_dim=1, max_batches=1, validate_every=1, batch_size=4, preparation="raw"))
    Run(config, tmp_path / "run").train()
    pictures = odd_pictures.write(tmp_path / "pictures")
    done = subprocess.run(
        [sys.executable, "scripts/infer.py", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}", "score",
         f"--images={pictures}", "--num_samples=2", "--background=white", "--round_pixels"], cwd=command_line.ROOT,
        env=os.environ | dict(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"), capture_output=True)
    out, err = done.stdout.decode(), done.stderr.decode("unicode_escape")
    assert done.returncode == 0, err
    read = sorted([*odd_pictures.READ, *odd_pictures.LEFT_OUT["transparent"]])
    with open(tmp_path / "out" / "score.csv", encoding="utf-8", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == read
    assert list(np.load(tmp_path / "out" / "score.npz")["names"]) == read
    left_out = [name for reason, names in odd_pictures.LEFT_OUT.items() if reason != "transparent" for name in names]
    assert f"read {len(read)} of {len(read) + len(left_out)} files in {pictures}" in err
    named = " ".join(line for line in err.splitlines() if line.startswith("not read"))
    assert all(name in named for name in left_out)
    assert "prepared as 'raw': pixel / 255, rounded to 1/255; 1 constant" in err
    assert len(out.splitlines()) == 3


def test_a_gaussians_own_draws_are_scored_with_clip(folder, tmp_path):
    def images(**options):
        return infer.read_images(tmp_path / "sample.npz", SHAPE, "continuous", "mine.npz", preparation="raw", **options)
    model = spvae_tf.build_model("SPVAE", SHAPE, "continuous", hidden_units=4, latent_dim=2, delta=4)
    infer.sample(model, tmp_path, 9, mean=False, seed=1)
    with pytest.raises(InputError, match=r"from -\S+ to \S+, as the draws of a Gaussian; .* --clip cuts them off"):
        images()
    draws = model.sample(9, mean=False, seed=1).numpy()
    x, _, _, report = images(clip=True)
    np.testing.assert_array_equal(x, np.clip(draws, 0, 1))
    assert f"{((draws < 0) | (draws > 1)).sum()} values outside [0, 1] cut off" in report


def test_a_transparent_array_is_as_a_transparent_picture(tmp_path):
    pictures, bar = tmp_path / "pictures", odd_pictures.BAR
    pictures.mkdir()
    (pictures / "bar.png").write_bytes(odd_pictures.png(bar))
    np.savez(tmp_path / "bar.npz", x=bar[None])
    for path in (pictures, tmp_path / "bar.npz"):
        def images(**options):
            return infer.read_images(path, bar.shape[:2], "discrete", "mine.npz", **options)  # noqa: B023
        with pytest.raises(InputError, match="transparent pixels.*--background=black or white"):
            images()
        np.testing.assert_array_equal(images(background="white").x[0], bar[..., 3].ravel() == 0)
        half = images(mask="right", background="white")
        np.testing.assert_array_equal(half.x[half.observed], bar[:, :4, 3].ravel() == 0)


def test_what_looks_like_images_and_is_none_is_refused(tmp_path):
    """Before anything is asked of its shape or its range; a single picture is a folder of one."""
    pixels = np.zeros([3, *SHAPE], np.uint8)
    for x, message in ((pixels[None, None], r"shape \(1, 1, 3, 4, 8\)"), (pixels[None], "channels come last"),
                       (pixels.astype(np.int8), "dtype int8"), (pixels[0, 0, 0], r"shape \(\)"),
                       (pixels + 200.0, r"to 200.0; allowed: floats in \[0, 1\]$")):
        np.savez(tmp_path / "x.npz", x=x)
        for mask in (None, "right"):
            with pytest.raises(InputError, match=message):
                infer.read_images(tmp_path / "x.npz", SHAPE, "continuous", "mine.npz", mask=mask)
    write_png(tmp_path / "a.png", pixels[0])
    assert infer.read_images(tmp_path / "a.png", SHAPE, "discrete", "mine.npz").names == ["a.png"]


def test_a_picture_between_counts_is_named(tmp_path):
    pictures = odd_pictures.write(tmp_path / "pictures")
    for rounds in (None, True):
        def images(rounds=rounds):
            return infer.read_images(pictures, odd_pictures.SHAPE, "discrete", "mine.npz", rounds, preparation="raw")
        if rounds:
            x = images().x
            np.testing.assert_array_equal(x, np.float32(np.rint(x * 255) / 255))
        else:
            with pytest.raises(InputError, match=r"image dark16.png is \S+/255 at pixel 0; .* --round_pixels rounds"):
                images()
