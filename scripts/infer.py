"""Asks a trained model for new images, hidden pixels, log-likelihoods, embeddings or latent states.

Example:
  python scripts/infer.py --workdir=/tmp/spvae --out=/tmp/answers inpaint --mask=right --images=pictures/
  python scripts/infer.py --workdir=/tmp/spvae --out=/tmp/answers sample --num_images=64

The command is one of sample, inpaint, score, embed, posterior. Each writes .npz, and .png and .csv where it applies,
into --out. Images come from a folder of .png files, from an .npz with an array x, or from the run's test set. They are
prepared as the training images were, grey and each scaled to [0, 1] by itself; answers are about the prepared images.
"""

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
_IMAGES = flags.DEFINE_string("images", None, "Folder of .png files or .npz; the run's test set when not given.")
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
    model = run.model
    if command == "sample":
        files = infer.sample(model, _OUT.value, _NUM_IMAGES.value or 64, _PIXELS.value == "mean", _SEED.value)
    else:
        x, names, observed = images(run, _MASK.value if command == "inpaint" else None)
        options = dict(num_samples=_NUM_SAMPLES.value, seed=_SEED.value)
        if command == "inpaint":
            options |= dict(observed=observed, num_draws=_NUM_DRAWS.value)
        files = getattr(infer, command)(model, _OUT.value, x, names, **options)
    print("\n".join(map(str, files)))


def images(run, mask):
    """The images asked about, their names, and which pixels are observed."""
    if not _IMAGES.value or _IMAGES.value in data.DATASETS:
        dataset = run.dataset if not _IMAGES.value else data.load_dataset(
            _IMAGES.value, run.config.likelihood, data_dir=_DATA_DIR.value, seed=_SEED.value)
        test = dataset.test
        check_number(len(test), "the test set has")
        test = test[:_NUM_IMAGES.value or 64]
        observed = infer.read_mask(mask, len(test), run.model.image_shape)
        return test, [str(number) for number in range(len(test))], observed
    config = run.config
    found = infer.read_images(_IMAGES.value, run.model.image_shape, config.likelihood, config.dataset,
                              config.round_pixels, _SEED.value, mask)
    check_number(len(found[0]), f"{_IMAGES.value} holds")
    return [part[:_NUM_IMAGES.value] for part in found]


def check_number(count, where):
    """Raises InputError when there are fewer images than --num_images."""
    if _NUM_IMAGES.value and _NUM_IMAGES.value > count:
        raise InputError(f"--num_images is {_NUM_IMAGES.value}; {where} {count}")


if __name__ == "__main__":
    cli.run(main, COMMANDS)
