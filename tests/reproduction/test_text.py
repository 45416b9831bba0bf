"""Tables as text and Markdown, and the numbers in them."""

import math
import statistics

import pytest

from spvae_tf.reproduction import text

TABLE = [["cell", "ours"], ["VAE", "-7.5"], ["SPVAE | a", "12.25"]]


def test_aligned():
    assert text.aligned(TABLE) == "cell       ours\nVAE        -7.5\nSPVAE | a  12.25"
    assert text.aligned(TABLE, numbers=True) == "cell        ours\nVAE         -7.5\nSPVAE | a  12.25"


def test_markdown():
    assert text.markdown(TABLE) == "| cell | ours |\n| --- | --- |\n| VAE | -7.5 |\n| SPVAE \\| a | 12.25 |"
    assert text.markdown(TABLE[:1]) == "Nothing has been run."


def test_by_model_has_the_papers_rows_and_columns():
    cells = {("VAE", "mnist", "discrete"): "a", ("SPVAE", "cifar10", "discrete"): "b",
             ("VAE", "cifar10", "continuous"): "c"}
    assert text.by_model(cells) == [["", "cifar10, continuous", "mnist, discrete", "cifar10, discrete"],
                                    ["SPVAE", "—", "—", "b"], ["VAE", "c", "a", "—"]]


def test_mean_and_deviation():
    values = [2819.0, 2801.5, 2833.25]
    mean, deviation = text.mean_and_deviation(values)
    assert mean == pytest.approx(statistics.mean(values))
    assert deviation == pytest.approx(statistics.stdev(values))
    mean, deviation = text.mean_and_deviation([-3.0])
    assert mean == -3 and math.isnan(deviation)
    assert text.mean_and_deviation([1, 1]) == (1, 0)
    assert all(map(math.isnan, text.mean_and_deviation([math.nan, 1.0])))


def test_spread():
    assert text.spread(12.34, 5.678, 3) == "12.3 ± 5.7 (3)"
    assert text.spread(12.34, None, "2, 3", sign="+") == "+12.3 (2, 3)"
    assert text.spread(98.76, 1.0, 2, unit=" %") == "98.8 % ± 1.0 (2)"
    assert text.spread(None, 1.0, 2) == text.spread(math.nan, math.nan) == "—"
    assert text.mean_of([2.0, 4.0]) == "3.0 ± 1.4 (2)" and text.mean_of([2.0], 0, "+", runs=False) == "+2"
    assert text.mean_of([]) == text.mean_of(None) == "—"


def test_numbers():
    assert text.number(1.25, 0) == "1" and text.number(3.0, 2, "+") == "+3.00"
    assert text.number(None) == text.number(math.nan) == "—"
    assert [text.per_cent(f) for f in (0.005, 0.1, 1)] == ["0.5 %", "10 %", "100 %"]
