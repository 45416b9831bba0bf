"""Rows grouped, numbers averaged, tables printed: one way for all of this folder.

A row is a dict. A table is a list of lines, each a list of str as long as the first, its head.
"""

import math

import numpy as np

from spvae_tf import published
from spvae_tf.model.likelihoods import bits_per_dimension, get_likelihood, uniform_log_prob
from spvae_tf.spvae import MODELS

CELL = ("model", "dataset", "likelihood")  # of a row: the key of its cell in published.CELLS
EARLIER = "†"  # beside what runs on images of the earlier preparation say
UNIFORM = "uniform over the counts"  # in place of a model
FOOTNOTE = f"{EARLIER} Of images prepared an earlier way (docs/authors.md), or not recorded; to be made again."


def grouped(rows, *fields):
    """Rows by the values of some fields: dict tuple -> list of rows, in the order in which they appear."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[field] for field in fields), []).append(row)
    return groups


def cell_name(row):
    """The name of a row's cell: its model, data set and likelihood."""
    return ", ".join(row[field] for field in CELL)


def number(value, digits=1, sign=""):
    """A number as text, "—" for None and NaN; the sign "+" is written before positive ones too."""
    return "—" if value is None or math.isnan(value) else f"{value:{sign}.{digits}f}"


def per_cent(fraction):
    """A fraction as text, 0.005 as "0.5 %"."""
    return f"{100 * fraction:g} %"


def mean_and_deviation(values):
    """(mean, standard deviation with n − 1, NaN for a single value) of a sequence of numbers."""
    return np.mean(values), np.std(values, ddof=1) if len(values) > 1 else math.nan


def spread(mean, deviation, runs=None, digits=1, sign="", unit=""):
    """Mean, deviation and number of runs, "2801.0 ± 1.4 (2)", without what is None or NaN; "—" without a mean."""
    if mean is None:
        return "—"
    deviation = "" if deviation is None or math.isnan(deviation) else f" ± {deviation:.{digits}f}"
    return f"{number(mean, digits, sign)}{unit}{deviation}" + ("" if runs is None else f" ({runs})")


def mean_of(values, digits=1, sign="", unit="", runs=True):
    """`spread` of values, with their number in brackets if `runs`; "—" where there are none."""
    return spread(*mean_and_deviation(values), len(values) if runs else None, digits, sign, unit) if values else "—"


def of_one_preparation(rows):
    """The rows on the authors' images, or all where there are none of these: no mean is of both preparations."""
    return [row for row in rows if row["preparation"] == "authors"] or rows


def mark(rows):
    """What stands behind a number of rows `of_one_preparation`: EARLIER, or nothing."""
    return f" {EARLIER}" if rows and rows[0]["preparation"] == "earlier" else ""


def mean_over(rows, field, **options):
    """`mean_of` a field of the rows `of_one_preparation`, with their `mark`."""
    used = of_one_preparation(rows)
    return mean_of([row[field] for row in used], **options) + mark(used)


def num_pixels(row):
    """Of a row's images; None where neither the row nor the paper tells."""
    return math.prod(row["image_shape"]) if "image_shape" in row else published.num_pixels(row["dataset"])


def bits(row, nats, digits=3):
    """Nats per image of a row's kind as bits per dimension; "density" where pixels are no counts, "—" for None."""
    if not get_likelihood(row["likelihood"]).of_counts:
        return "density"
    pixels = num_pixels(row)
    return "—" if nats is None or pixels is None else number(bits_per_dimension(nats, pixels), digits)


def uniform_of(rows):
    """log p of the uniform distribution, nats per image: dict key of a cell, with UNIFORM in place of the model."""
    return {(UNIFORM, row["dataset"], row["likelihood"]): uniform_log_prob(pixels) for row in rows
            if get_likelihood(row["likelihood"]).of_counts and (pixels := num_pixels(row))}


def _footnote(lines):
    return [FOOTNOTE] if any(EARLIER in cell for line in lines for cell in line) else []


def aligned(lines, numbers=False):
    """A table as text in columns; `numbers` says that all columns but the first hold numbers, and end together."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(["  ".join(cell.rjust(width) if numbers and place else cell.ljust(width)
                                for place, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines]
                     + _footnote(lines))


def markdown(lines, empty="Nothing has been run."):
    """A table in Markdown, or `empty` where it has only a head."""
    head, *body = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    table = "\n".join([head, "|" + " --- |" * len(lines[0]), *body]) if body else empty
    return "\n\n".join([table, *_footnote(lines)])


def by_model(cells):
    """The paper's table of cells, a dict (model, data set, likelihood) -> str: a line for each model."""
    datasets = dict.fromkeys(dataset for _, dataset, _ in cells)
    models = dict.fromkeys([*MODELS, *(model for model, *_ in cells)])
    likelihoods = dict.fromkeys([*published.LIKELIHOODS, *(likelihood for *_, likelihood in cells)])
    columns = [(dataset, likelihood) for likelihood in likelihoods for dataset in datasets
               if any((model, dataset, likelihood) in cells for model in models)]
    return [["", *map(", ".join, columns)]] + [[model, *(cells.get((model, *column), "—") for column in columns)]
                                               for model in models if any(key[0] == model for key in cells)]
