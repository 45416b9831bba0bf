"""One cell of Table 1: --config=configs/table1.py:DATASET/LIKELIHOOD/MODEL, for example mnist/continuous/spvae.

The data set may be the path of an .npz. Any setting can be changed besides, as in --config.latent_dim=50.

  settings and their defaults    spvae_tf/training/configuration.py, SETTINGS
  the two protocols              there, PAPER and RELEASED: learning rates, patience, stream of batches
  H and n_z of every cell        spvae_tf/paper_data/tables_1_and_2.csv: Table 2
"""

from spvae_tf.errors import InputError
from spvae_tf.training.configuration import make_config


def get_config(cell="mnist/continuous/spvae"):
    """The configuration of a cell; raises InputError unless it has three parts that exist."""
    parts = cell.rsplit("/", 2)
    if len(parts) != 3:
        raise InputError(f"the cell is {cell!r}; it must be DATASET/LIKELIHOOD/MODEL, e.g. mnist/continuous/spvae")
    dataset, likelihood, model = parts
    return make_config(model, dataset, likelihood)
