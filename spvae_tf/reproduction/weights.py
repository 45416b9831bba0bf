"""Weights to take home: of each cell the run that was best on the validation set, packed into weights/."""

import json
import shutil
from pathlib import Path

from spvae_tf import files
from spvae_tf.reproduction.text import CELL, bits, grouped, markdown
from spvae_tf.training import configuration, pretrained, records
from spvae_tf.training.data import DATASETS
from spvae_tf.training.evaluation import evaluate
from spvae_tf.training.run import Run, make_model

NUM_SAMPLES, NUM_IMAGES = 100, 1000  # of the figure that anybody can recompute in minutes
MAX_BYTES = 8_000_000  # of one file; a VAE of CIFAR-10 has more
KEPT = (*CELL, "protocol", "seed", "params", "num_train", "batches", "best_batch",
        "val_ll_k5", "test_ll", "test_ll_stderr", "num_samples", "num_test_images", "device", "versions", "commit")

HEAD = """# Trained weights

`spvae_tf.pretrained("NAME")` loads them, and so does `--weights=NAME` of `evaluate.py`, `infer.py` and `pictures.py`.
Each is the run of its cell with the best validation ELBO, trained on images prepared as the authors prepared theirs
([docs/authors.md](../docs/authors.md)). Under protocol `released` training saw the first 17,384 of them alone.
`scripts/pack_weights.py` made this folder.

Log-likelihoods are lower bounds, in nats per image, of all test images. Bits per dimension, of which the uniform
distribution has 8, exist for discrete data alone: those of continuous data are densities of noisy images, which depend
on the scale.
"""

TAIL = """
Good for: sampling, inpainting, scoring and embedding images prepared in the same way; comparing a method with the
paper's model as the paper trained it; tests of code that needs a trained model.

Not good for: photographs of any other kind; colour; comparing bits per dimension with models of unprepared images.
The Binomial likelihood is narrow, so discrete log-likelihoods are far from those of other likelihoods.
"""


def pack(results_dir, folder, data_dir=None):
    """Packs the weights that results/<protocol>/weights/ has, with their index and cards; returns the names."""
    cards = pretrained.read_index(folder)
    for cell, found in grouped(_candidates(Path(results_dir)), *CELL).items():
        record = max(found, key=lambda record: record["val_ll_k5"])
        name = "-".join(cell).lower()
        if any(cards.get(name, {}).get(key) != record[key] for key in KEPT):
            cards[name] = _pack(record, Path(folder) / f"{name}.npz", data_dir)
    files.write_text(Path(folder) / pretrained.INDEX, json.dumps(cards, indent=1, sort_keys=True) + "\n")
    files.write_text(Path(folder) / "README.md", as_page(cards))
    return sorted(cards)


def _candidates(results_dir):
    """Records of whole runs on the authors' images whose weights are there and small enough; with their `weights`."""
    for protocol in configuration.PROTOCOLS:
        for record in records.read_records(results_dir / protocol):
            path = results_dir / protocol / "weights" / f"{record['name']}.npz"
            settings = configuration.with_defaults(record["config"])
            whole = record["dataset"] in DATASETS and settings["train_fraction"] == 1 and record["test_ll"] is not None
            if whole and settings["preparation"] == "authors" and path.exists() and path.stat().st_size <= MAX_BYTES:
                yield record | dict(weights=path)


def _pack(record, path, data_dir):
    """Writes one run's weights; returns its card, with the quick figure measured."""
    run = Run(configuration.recorded_config(record["config"], data_dir=data_dir), None)
    dataset = run.dataset
    model = pretrained.with_weights(make_model(run.config, dataset.image_shape), record["weights"])
    quick = evaluate(model, dataset.test[:NUM_IMAGES], NUM_SAMPLES)
    files.write_atomically(path, lambda temporary: shutil.copyfile(record["weights"], temporary))
    return {key: record[key] for key in KEPT} | dict(
        sha256=pretrained.digest(path), image_shape=list(dataset.image_shape), config=record["config"],
        quick_test_ll=round(quick.mean, 2))


def as_page(cards):
    """weights/README.md."""
    lines = [["name", "test log p(x)", "k", "bits per dimension", f"quick figure (k = {NUM_SAMPLES}, first "
              f"{NUM_IMAGES:,} test images)", "protocol", "seed", "training images", "parameters", "commit", "device",
              "SHA-256"]]
    for name, card in sorted(cards.items()):
        lines.append([
            f"`{name}`", f"{card['test_ll']:.1f} ± {card['test_ll_stderr']:.1f}", f"{card['num_samples']:,}",
            bits(card, card["test_ll"]), f"{card['quick_test_ll']:.2f}",
            card["protocol"], str(card["seed"]), f"{card['num_train']:,}", f"{card['params']:,}", card["commit"],
            card["device"], f"`{card['sha256'][:12]}…`"])
    return f"{HEAD}\n{markdown(lines)}\n{TAIL}"
