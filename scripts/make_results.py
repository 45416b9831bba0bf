"""Makes every figure of RESULTS.md anew from the CSVs in results/, and the plot of ours against the paper's.

Example:
  python scripts/make_results.py
"""

import cli  # isort: skip (first: it quiets TensorFlow)
from pathlib import Path

from absl import flags

from spvae_tf import checkpoint, results_page
from spvae_tf.errors import InputError

_RESULTS_DIR = flags.DEFINE_string("results_dir", "results", "Folder with released/, paper/ and svhn_subset/.")
_PAGE = flags.DEFINE_string("page", "RESULTS.md", "The page; what stands between its marks is replaced.")
_PLOT = flags.DEFINE_string("plot", "results/figures/ours_against_paper.png", "The picture.")


def main():
    page = Path(_PAGE.value)
    if not page.exists():
        raise InputError(f"there is no page {page}")
    blocks = results_page.results_blocks(_RESULTS_DIR.value)
    checkpoint.write_text(page, results_page.fill(page.read_text(encoding="utf-8"), blocks))
    results_page.plot(_RESULTS_DIR.value, _PLOT.value)
    print(f"{page}\n{_PLOT.value}")


if __name__ == "__main__":
    cli.run(main)
