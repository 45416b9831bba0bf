"""Makes the generated parts of RESULTS.md and README.md anew from the CSVs in results/, and the plots of them.

Example:
  python scripts/make_results.py
"""

import cli  # isort: skip (first: it quiets TensorFlow)
from pathlib import Path

from absl import flags

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.reproduction import plots, report

_RESULTS_DIR = flags.DEFINE_string("results_dir", "results", "Folder with released/, paper/ and svhn_subset/.")
_PAGE = flags.DEFINE_string("page", "RESULTS.md", "The page; what stands between its marks is replaced.")
_README = flags.DEFINE_string("readme", "README.md", "The page with the short table.")
_FIGURES = flags.DEFINE_string("figures", "results/figures", "Folder of the plots.")


def main():
    pages = {}
    for path, blocks_of in ((_PAGE.value, report.results_blocks), (_README.value, report.readme_blocks)):
        if not Path(path).exists():
            raise InputError(f"there is no page {path}")
        pages[path] = report.fill(Path(path).read_text(encoding="utf-8"), blocks_of(_RESULTS_DIR.value))
    for path, page in pages.items():
        files.write_text(path, page)
        print(path)
    print(*plots.of_results(_RESULTS_DIR.value, _FIGURES.value), sep="\n")


if __name__ == "__main__":
    cli.run(main)
