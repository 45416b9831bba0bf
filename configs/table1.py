"""One cell of Table 1 with Table 2's hyper-parameters.

Used as --config=configs/table1.py:DATASET/LIKELIHOOD/MODEL, for example mnist/continuous/spvae. Each field can be set
besides, as in --config.latent_dim=50; spvae_tf/configuration.py has the list.
"""

from spvae_tf.errors import InputError
from spvae_tf.training.configuration import make_config


def get_config(cell="mnist/continuous/spvae"):
    """The configuration of a cell.

    Args:
      cell: "dataset/likelihood/model"; the data set may be the path of an .npz.

    Returns:
      ml_collections.ConfigDict.

    Raises:
      InputError: when the cell has not three parts or one of them does not exist.
    """
    parts = cell.rsplit("/", 2)
    if len(parts) != 3:
        raise InputError(f"the cell is {cell!r}; it must be DATASET/LIKELIHOOD/MODEL, e.g. mnist/continuous/spvae")
    dataset, likelihood, model = parts
    return make_config(model, dataset, likelihood)
