"""Tables as text or Markdown, and the numbers in them.

A table is a list of lines, each a list of str as long as the first, its head.
"""

import math

from spvae_tf.model.likelihoods import LIKELIHOODS
from spvae_tf.spvae import MODELS


def aligned(lines, numbers=False):
    """A table as text in columns; `numbers` says that all columns but the first hold numbers, and end together."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.rjust(width) if numbers and place else cell.ljust(width)
                               for place, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines)


def markdown(lines):
    """A table in Markdown, or "Nothing has been run." where it has only a head."""
    head, *body = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *body]) if body else "Nothing has been run."


def by_model(cells):
    """A table like the paper's: a line for each model, a column for each likelihood and data set.

    Args:
      cells: dict (model, data set, likelihood) -> str.
    """
    datasets = dict.fromkeys(dataset for _, dataset, _ in cells)
    columns = [(d, likelihood) for likelihood in LIKELIHOODS for d in datasets
               if any((model, d, likelihood) in cells for model in MODELS)]
    return [["", *map(", ".join, columns)]] + [[model, *(cells.get((model, *column), "—") for column in columns)]
                                               for model in MODELS if any(key[0] == model for key in cells)]


def number(value, digits=1, sign=""):
    """A number as text, "—" for None and NaN; the sign "+" is written before positive ones too."""
    return "—" if value is None or math.isnan(value) else f"{value:{sign}.{digits}f}"


def per_cent(fraction):
    """A fraction as text, 0.005 as "0.5 %"."""
    return f"{100 * fraction:g} %"


def mean_and_deviation(values):
    """(mean, standard deviation with n − 1, NaN for a single value) of a sequence of numbers."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, math.nan
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def spread(mean, deviation, runs=None, digits=1, sign="", unit=""):
    """A mean with its standard deviation and the number of runs, "2801.0 ± 1.4 (2)"; "—" without a mean.

    Args:
      mean, deviation: float; None and NaN are left out.
      runs: their number, or a text, for the brackets; None leaves them out.
      digits, sign: as in `number`.
      unit: written behind the mean.
    """
    if mean is None:
        return "—"
    deviation = "" if deviation is None or math.isnan(deviation) else f" ± {deviation:.{digits}f}"
    return f"{number(mean, digits, sign)}{unit}{deviation}" + ("" if runs is None else f" ({runs})")


def mean_of(values, digits=1, sign="", unit="", runs=True):
    """`spread` of values, with their number in brackets if `runs`; "—" where there are none."""
    return spread(*mean_and_deviation(values), len(values) if runs else None, digits, sign, unit) if values else "—"
