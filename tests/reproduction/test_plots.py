"""Plots: which runs are drawn, what stands beside them, panels."""

import math

import numpy as np
import pytest
from rows import make_row

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.reproduction import beyond, compare, plots, table1
from spvae_tf.training import configuration, records


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were saved."""
    saved = []
    monkeypatch.setattr(plots, "save", lambda figure, path, legend=False: saved.append(figure))
    return saved


@pytest.mark.parametrize("count, rows, columns", [(1, 1, 1), (3, 1, 3), (4, 2, 2), (5, 2, 3), (6, 2, 3)])
def test_four_panels_and_more_stand_in_two_rows(count, rows, columns):
    figure, axes = plots.panels(count, 2, 1)
    assert tuple(figure.get_size_inches()) == (2 * columns, rows)
    assert len(axes) == len(figure.axes) == count


def test_nothing_that_was_run_makes_empty_plots(tmp_path):
    for path in plots.of_results(tmp_path / "nothing", tmp_path / "figures"):
        assert path.read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize("rows, label, size", [
    ([("mnist", "continuous")], "(nats per image, a density)", None),
    ([("mnist", "discrete"), ("mnist_sample", "logistic")], "(nats per image)", 784),
    ([("mnist", "discrete"), ("cifar10", "discrete")], "(nats per image)", None),
    ([("mine", "discrete")], "(nats per image)", None)])
def test_bits_per_dimension_stand_on_the_right_of_counts(rows, label, size):
    _, (axes,) = plots.panels(1, 2, 2)
    axes.set_ylim(-size if size else -1, 0)
    plots.label_nats(axes, "ELBO", [dict(zip(("dataset", "likelihood"), row)) for row in rows])
    assert axes.get_ylabel() == f"ELBO\n{label}" and len(axes.child_axes) == bool(size)
    if size:
        axes.figure.draw_without_rendering()
        np.testing.assert_allclose(sorted(axes.child_axes[0].get_ylim()), [0, 1 / math.log(2)], atol=1e-9)


# --- Table 1 ----------------------------------------------------------------------------------------------------------

def test_ours_against_paper_marks_numbers_of_other_sizes_and_gives_one_seed_no_bar(drawn):
    rows = [make_row("Conv-VAE", likelihood="discrete"), *(make_row(seed=n, test_ll=2800.0 + n) for n in (0, 2)),
            *(make_row(dataset="cifar10", likelihood=likelihood) for likelihood in ("continuous", "discrete"))]
    plots.ours_against_paper({"paper": compare.compare([]), "released": compare.compare(rows)}, "unused")
    axes = {a.get_title(): a for a in drawn[0].axes}
    assert len(axes) == 4
    lines = {line.get_label(): np.array(line.get_ydata(), float) for line in axes["mnist, discrete"].lines}
    np.testing.assert_array_equal(lines["paper"], [-1532, -2351, -927, np.nan])
    np.testing.assert_array_equal(lines["paper, of a checkpoint of other sizes"], [np.nan] * 3 + [-2099])

    def bars(title):
        ours = next(c for c in axes[title].containers if "released" in c.get_label())
        segments = (np.array(segment, float) for segment in ours.lines[2][0].get_segments())
        return [segment[:, 1] for segment in segments if segment.size and np.isfinite(segment).all()]
    assert not bars("cifar10, discrete") and not bars("mnist, discrete")
    np.testing.assert_allclose(bars("mnist, continuous"), [2801 + np.array([-1, 1]) * math.sqrt(2)])
    assert not any(panel.texts for panel in axes.values())
    earlier = [make_row("VAE", preparation="earlier"), make_row(seed=0), make_row(seed=1, preparation="earlier")]
    plots.ours_against_paper({"released": compare.compare(earlier)}, "unused")
    mark, = drawn[1].axes[0].texts
    assert mark.get_text() == " †" and mark.xy[1] == 2598  # the VAE's


def write_run(folder, preset="tuned", dataset="mnist", val_ll_k5=2.0, **changes):
    """The record and the learning curve of a run of a VAE."""
    config = table1.make_configs(preset, "released", ["VAE"], [dataset], ["continuous"], [0])[0]
    config = configuration.resolve(config, **changes)
    named = {key: config[key] for key in files.TEXT_COLUMNS + ("seed", "hidden_units", "latent_dim") if key in config}
    record = dict.fromkeys(records.FIELDS, 1) | dict.fromkeys(files.TEXT_COLUMNS, "") | named | dict(
        val_ll_k5=val_ll_k5, best_batch=256, config=config.to_dict())
    name = config.name
    records.write_record(folder, name, record)
    files.write_text(folder / "curves" / f"{name}.csv", "batch,train_ll,val_ll,best,seconds\n"
                     f"128,1.0,1.0,1,1.0\n256,2.0,{val_ll_k5},1,2.0\n")


def test_learning_curves_are_of_table_1s_runs_alone(tmp_path, drawn):
    for change in (dict(preset="grid"), dict(preset="mini"), dict(dataset="mnist_sample"), dict(train_fraction=0.1),
                   dict(learning_rate=0.5)):
        write_run(tmp_path, val_ll_k5=-9.0, **change)
    with pytest.raises(InputError, match="holds no finished runs of Table 1"):
        plots.learning_curves(tmp_path, "unused.png")
    write_run(tmp_path)
    write_run(tmp_path, seed=1)
    plots.learning_curves(tmp_path, "unused.png")
    axes, = drawn[0].axes
    assert [list(line.get_ydata()) for line in axes.lines if line.get_linestyle() == "-"] == [[1.0, 2.0]] * 2
    assert axes.get_legend_handles_labels()[1] == ["VAE"] and axes.texts[0].get_text() == "authors' log, VAE"


# --- beyond the paper -------------------------------------------------------------------------------------------------

def test_tightness_has_a_line_for_each_model_and_q_and_a_panel_for_each_protocol(drawn):
    row = dict(task=beyond.IMAGE, dataset="mnist", likelihood="discrete", preparation="authors")
    values = {("SPVAE", 1.0, beyond.AMORTISED): (-10, -12), ("SPVAE", 1.0, beyond.FITTED): (-8,),
              ("VAE", 1.0, beyond.AMORTISED): (-20,), ("VAE", 1.0, beyond.FITTED): (-7.5,),
              ("VAE", 0.005, beyond.FITTED): (-30,)}
    rows = [row | dict(model=model, train_fraction=fraction, setting=setting, value=value, protocol=protocol)
            for (model, fraction, setting), found in values.items() for value in found
            for protocol in ("paper", "released")]
    plots.tightness(rows + [rows[0] | dict(task=beyond.HALF, value=-1000)], "unused")  # not a bound of the image
    axes = {a.get_title(): a for a in drawn[0].axes}
    assert list(axes) == ["mnist, discrete, protocol paper", "mnist, discrete, protocol released"]
    lines = {bars.get_label(): bars.lines[0] for bars in axes["mnist, discrete, protocol paper"].containers}
    points = {label: (list(line.get_xdata()), list(line.get_ydata())) for label, line in lines.items()}
    assert points == {f"SPVAE, {beyond.AMORTISED}": ([1], [-11]), f"SPVAE, {beyond.FITTED}": ([1], [-8]),
                      f"VAE, {beyond.AMORTISED}": ([1], [-20]), f"VAE, {beyond.FITTED}": ([0.005, 1], [-30, -7.5])}
    for label, line in lines.items():
        style = ("-", "full") if beyond.FITTED in label else ("--", "none")
        assert (line.get_linestyle(), line.get_fillstyle()) == style
        assert line.get_color() == plots.COLOURS[label.split(",")[0]]
