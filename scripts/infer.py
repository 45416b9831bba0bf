"""Asks a trained model for new images, hidden pixels, log-likelihoods, embeddings or latent states.

Example:
  python scripts/infer.py --workdir=/tmp/spvae --out=/tmp/answers inpaint --mask=right --images=pictures/
  python scripts/infer.py --workdir=/tmp/spvae --out=/tmp/answers sample --num_images=64

The command is one of sample, inpaint, score, embed, posterior. Each writes .npz, and .png and .csv where it applies,
into --out. Images come from a folder of pictures (PNG, JPEG, BMP, GIF, WebP), from an .npz with an array x, or from the
run's test set. They are prepared as the training images were; answers are about the prepared images. Standard error
says which files were read, which were not and why, and how images were prepared.
"""

import sys

import cli  # isort: skip (first: it quiets TensorFlow)
from absl import flags

from spvae_tf import infer
from spvae_tf.errors import InputError
from spvae_tf.training import data
from spvae_tf.training.pretrained import open_trained

COMMANDS = ("sample", "inpaint", "score", "embed", "posterior")

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of scripts/train.py.")
_WEIGHTS = flags.DEFINE_string("weights", None, "Or the name of trained weights, see weights/README.md.")
_OUT = flags.DEFINE_string("out", None, "Folder for the answers.", required=True)
_IMAGES = flags.DEFINE_string("images", None, "Folder of pictures, .npz, or data set, of which the test set is taken; "
                                               "the run's own when not given.")
_BACKGROUND = flags.DEFINE_enum("background", None, list(data.BACKGROUNDS), "On what transparent pixels lie.")
_PREPARATION = flags.DEFINE_enum("preparation", None, data.PREPARATIONS, "Of --images; the run's own when not given.")
_ROUND_PIXELS = flags.DEFINE_bool("round_pixels", None, "Round --images to multiples of 1/255; the run's own when not "
                                                        "given.")
_CLIP = flags.DEFINE_bool("clip", False, "Cut values of --images off at 0 and 1, such as a Gaussian's draws.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", None, "How many: new images, or of the test set (64 when not given), "
                                                       "or of --images (all when not given).", lower_bound=1)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 100, "k, importance samples per expert.", lower_bound=1)
_NUM_DRAWS = flags.DEFINE_integer("num_draws", 3, "inpaint: draws per image besides the mean.", lower_bound=1)
_MASK = flags.DEFINE_string("mask", "right", "inpaint: the hidden half, left, right, top or bottom, or an .npz with an "
                                             "array observed, bool [H, W] or [n, H, W].")
_PIXELS = flags.DEFINE_enum("pixels", "mean", ["mean", "draw"], "sample: E[x | z] or a draw from p(x | z).")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets; the run's own when not given.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the samples, and of the noise added to continuous images.", lower_bound=0)


def main(command):
    if not _OUT.value:
        raise InputError("--out is empty; it must name a folder")
    run = open_trained(_WORKDIR.value, _WEIGHTS.value, _DATA_DIR.value)
    model, report = run.model, []
    if command == "sample":
        files = infer.sample(model, _OUT.value, _NUM_IMAGES.value or 64, _PIXELS.value == "mean", _SEED.value)
    else:
        x, names, observed, report = images(run, _MASK.value if command == "inpaint" else None)
        options = dict(num_samples=_NUM_SAMPLES.value, seed=_SEED.value)
        if command == "inpaint":
            options |= dict(observed=observed, num_draws=_NUM_DRAWS.value)
        files = getattr(infer, command)(model, _OUT.value, x, names, **options)
    for line in report:
        print(line, file=sys.stderr)
    print("\n".join(map(str, files)))


def images(run, mask):
    """infer.Images, those asked about."""
    config = run.config
    prepared = dict(preparation=_PREPARATION.value or ("raw" if config.preparation == "raw" else "authors"),
                    round_pixels=config.round_pixels if _ROUND_PIXELS.value is None else _ROUND_PIXELS.value)
    if not _IMAGES.value or _IMAGES.value in data.DATASETS:
        dataset = run.dataset if not _IMAGES.value else data.load_dataset(
            _IMAGES.value, config.likelihood, data_dir=_DATA_DIR.value, seed=_SEED.value, **prepared)
        test = dataset.test
        check_number(len(test), "the test set has")
        test = test[:_NUM_IMAGES.value or 64]
        observed = infer.read_mask(mask, len(test), run.model.image_shape)
        return infer.Images(test, [str(number) for number in range(len(test))], observed, [])
    found = infer.read_images(_IMAGES.value, run.model.image_shape, config.likelihood, config.dataset, seed=_SEED.value,
                              mask=mask, background=_BACKGROUND.value, clip=_CLIP.value, **prepared)
    check_number(len(found.names), f"{_IMAGES.value} holds")
    return infer.Images(*(part[:_NUM_IMAGES.value] for part in found[:3]), found.report)


def check_number(count, where):
    """Raises InputError when there are fewer images than --num_images."""
    if _NUM_IMAGES.value and _NUM_IMAGES.value > count:
        raise InputError(f"--num_images is {_NUM_IMAGES.value}; {where} {count}")


if __name__ == "__main__":
    cli.run(main, COMMANDS)
