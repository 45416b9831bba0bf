"""Table 2: the number of parameters of the paper's 24 models."""

from spvae_tf import published
from spvae_tf.reproduction import text
from spvae_tf.spvae import build_model

FIELDS = (*text.CELL, "params", "paper_kparams")


def count_parameters():
    """A row for every model of Table 2, counted on models that are built: a list of dicts with the keys FIELDS."""
    rows = []
    for (model, dataset, likelihood), cell in published.CELLS.items():
        side = published.SIDES[dataset]
        built = build_model(model, (side, side), likelihood, cell.hidden_units, cell.latent_dim)
        rows.append(dict(zip(FIELDS, (model, dataset, likelihood, built.count_params(), cell.kparams))))
    return rows


def as_text(rows):
    """The rows of `count_parameters` as a table in text, the paper's thousands in brackets."""
    cells = {key: f"{row['params']:,} ({row['paper_kparams']}k)"
             for key, (row,) in text.grouped(rows, *text.CELL).items()}
    return f"Parameters (the paper's, in thousands, in brackets)\n{text.aligned(text.by_model(cells), numbers=True)}"
