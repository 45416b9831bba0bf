"""Makes every figure of RESULTS.md and README.md's table anew from the CSVs in results/, and the pictures of them.

Example:
  python scripts/make_results.py
"""

import cli  # isort: skip (first: it quiets TensorFlow)
from pathlib import Path

from absl import flags

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.reproduction import report as results_page

_RESULTS_DIR = flags.DEFINE_string("results_dir", "results", "Folder with released/, paper/ and svhn_subset/.")
_PAGE = flags.DEFINE_string("page", "RESULTS.md", "The page; what stands between its marks is replaced.")
_README = flags.DEFINE_string("readme", "README.md", "The page with the short table.")
_FIGURES = flags.DEFINE_string("figures", "results/figures", "Folder of the pictures.")


def main():
    filled = {}
    for name, blocks_of in ((_PAGE.value, results_page.results_blocks), (_README.value, results_page.readme_blocks)):
        if not Path(name).exists():
            raise InputError(f"there is no page {name}")
        filled[name] = results_page.fill(Path(name).read_text(encoding="utf-8"), blocks_of(_RESULTS_DIR.value))
    for name, text in filled.items():
        files.write_text(name, text)
        print(name)
    print(*results_page.plot(_RESULTS_DIR.value, _FIGURES.value), sep="\n")


if __name__ == "__main__":
    cli.run(main)
