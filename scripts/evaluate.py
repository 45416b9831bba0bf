"""Tests a trained model: the k-sample IWAE ELBO on the test set (Table 1 with k = 5,000).

Examples:
  python scripts/evaluate.py --workdir=/tmp/spvae --num_samples=5000 --num_images=100
  python scripts/evaluate.py --weights=spvae-mnist-discrete --num_samples=100 --num_images=1000
  python scripts/evaluate.py --workdir=/tmp/spvae --num_samples=1000 --num_images=100 --refinements=400
    with q(z | x) fitted to each image first: a tighter bound on the same log p(x).

The run's folder keeps the values of images that are done, so a test that was stopped goes on where it was.
"""

import cli  # isort: skip (first: it quiets TensorFlow)
import numpy as np
from absl import flags

from spvae_tf.errors import InputError
from spvae_tf.training.evaluation import evaluate, in_words, uniform_in_words
from spvae_tf.training.pretrained import open_trained

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of scripts/train.py.")
_WEIGHTS = flags.DEFINE_string("weights", None, "Or the name of trained weights, see weights/README.md.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 5000, "k of the bound.", lower_bound=1)
_NUM_IMAGES = flags.DEFINE_integer("num_images", None, "How many test images; all when not given.", lower_bound=1)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets; the run's own when not given.")
_REFINEMENTS = flags.DEFINE_integer("refinements", 0, "Steps that fit q(z | x) to each image first.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Of the samples.", lower_bound=0)


def main():
    run = open_trained(_WORKDIR.value, _WEIGHTS.value, _DATA_DIR.value)
    model, test = run.model, run.dataset.test
    if _NUM_IMAGES.value and _NUM_IMAGES.value > len(test):
        raise InputError(f"--num_images is {_NUM_IMAGES.value}; the test set has {len(test)}")
    result = evaluate(model, test[:_NUM_IMAGES.value], _NUM_SAMPLES.value, _SEED.value, _REFINEMENTS.value,
                      run.workdir)
    fitted = f", q fitted in {_REFINEMENTS.value} steps" if _REFINEMENTS.value else ""
    config = run.config
    print(f"{config.model} on {config.dataset}, {config.likelihood}: test ELBO (k = {result.num_samples}{fitted}) "
          f"{in_words(model, result.mean, result.stderr)} "
          f"(standard error over {len(result.log_prob)} of {len(test)} test images)")
    if len(result.log_prob) > 1:
        image = result.log_prob.argmin()  # on continuous data one image can decide the mean
        others = np.delete(result.log_prob, image)
        print(f"median {np.median(result.log_prob):.2f}; the least probable is image {image} with "
              f"{result.log_prob[image]:.2f}, the mean of the others {others.mean():.2f}")
    for line in uniform_in_words(model):
        print(line)


if __name__ == "__main__":
    cli.run(main)
