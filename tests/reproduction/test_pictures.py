"""Pictures of a model: what is drawn where, how wide a cut is, and the command line."""

import math

import command_line
import numpy as np
import pytest

from spvae_tf import build_model
from spvae_tf.errors import InputError
from spvae_tf.model.region_graph import Partition, Region, RegionGraph, poon_domingos, random_binary_trees
from spvae_tf.reproduction import pictures

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were saved."""
    saved = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: saved.append(figure))
    return saved


@pytest.fixture(scope="module")
def model():
    """Six pixels in a row, three super-pixels: the root is cut after the first or after the second."""
    return build_model("SPVAE", (2, 6), "continuous", hidden_units=3, latent_dim=2, delta=2, seed=0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((5, 12), np.float32)


def test_grid_boxes_count_super_pixels():
    boxes = pictures.grid_boxes(poon_domingos(5, 6, 4), 6)  # the last step is smaller
    assert sorted(boxes.values()) == [(0, 0, 1, 1), (0, 0, 1, 2), (0, 0, 2, 1), (0, 0, 2, 2), (0, 1, 1, 1),
                                      (0, 1, 2, 1), (1, 0, 1, 1), (1, 0, 1, 2), (1, 1, 1, 1)]
    with pytest.raises(InputError, match="not a rectangle"):
        pictures.grid_boxes(random_binary_trees(16, 2, 1, 0), 4)


def test_region_graph_of_the_small_complete_example(drawn):
    """2×2 super-pixels: 9 regions, 6 partitions; 8 leaves, 4 · 2 + 1 sums and 4 · 4 + 2 · 4 products."""
    pictures.region_graph("unused.png")
    regions, spn = drawn[0].axes
    assert len(regions.patches) == 9 * 4
    assert sum(line.get_marker() == "o" for line in regions.lines) == 6
    assert sum(line.get_marker() != "o" for line in regions.lines) == 6 * 3  # a partition's parent and two children
    assert len(spn.patches) == 8 * 4
    signs = [text.get_text() for text in spn.texts]
    assert signs.count("+") == 9 and signs.count("×") == 24
    assert sum(line.get_marker() != "o" for line in spn.lines) == 4 * 4 * (2 + 2) + 8 * (1 + 2)


def cut_widths(axes):
    """x of a vertical cut in the root -> its width."""
    return {round(float(line.get_xdata()[0]), 3): line.get_linewidth() for line in axes.lines}


def test_a_cut_is_as_wide_as_its_probability(drawn, model, images):
    """By hand: the root's products are 2·2 of each cut, and a cut's probability is the sum of their weights."""
    root = model.spn.levels[-1]
    weights = model.spn.sum_weights.numpy()
    weights[root.weights[0, :, 0]] = np.log([0.1, 0.2, 0.3, 0.1, 0.05, 0.05, 0.1, 0.1])
    before = model.spn.sum_weights.numpy()
    model.spn.sum_weights.assign(weights)
    pictures.sum_weights(model, images, "unused.png")
    model.spn.sum_weights.assign(before)
    prior = drawn[0].axes[0]
    first, second = model.graph.partitions_of(model.graph.root)
    widths = list(cut_widths(prior).values())[-2:]  # the root's come last
    assert len(first.children[0].scope) < len(second.children[0].scope)
    np.testing.assert_allclose(widths, [4 * 0.7, 4 * 0.3], rtol=1e-5)
    shades = [patch.get_facecolor() for patch in prior.patches]
    assert sum(np.allclose(shade, pictures.SHADES(pictures.SHADE_SCALE(0.7))) for shade in shades) == 1  # right pair
    assert sum(np.allclose(shade, pictures.SHADES(pictures.SHADE_SCALE(0.3))) for shade in shades) == 1  # left pair


def side_by_side(*columns):
    """A region graph of one row of pixels whose root has one partition, its children in the order given."""
    leaves = tuple(Region(tuple(scope)) for scope in columns)
    root = Region(tuple(sorted(sum(columns, []))))
    return RegionGraph([*leaves, root], [Partition(root, leaves)])


@pytest.mark.parametrize("columns", [([0], [1], [2]), ([2], [0], [1])])
def test_cuts_lie_between_children_in_any_order(drawn, columns):
    graph = side_by_side(*columns)
    model = build_model("SPVAE", (1, 3), "continuous", hidden_units=2, latent_dim=1, graph=graph, seed=0)
    pictures.sum_weights(model, np.random.default_rng(0).random((2, 3), np.float32), "unused.png")
    assert sorted(x - min(cut_widths(drawn[0].axes[0])) for x in cut_widths(drawn[0].axes[0])) == [0, 1]
    right_edge = max(patch.get_x() + patch.get_width() for patch in drawn[0].axes[0].patches)
    assert max(cut_widths(drawn[0].axes[0])) == pytest.approx(right_edge - 1)


def test_super_pixels_that_are_no_grid_are_refused():
    assert pictures.grid_of([(0, 0, 1, 1), (0, 3, 1, 1)]) == ([0], [0, 3])
    with pytest.raises(InputError, match="3 leaf regions begin at 2 rows and 2 columns"):
        pictures.grid_of([(0, 0, 4, 2), (0, 2, 2, 2), (2, 2, 2, 2)])


def test_super_pixels_are_filled_up_to_their_left_vaes_probability(drawn, model, images):
    pictures.sum_weights(model, images, "unused.png")
    posterior = model.posterior(images, seed=0).leaves.numpy().mean(axis=0)[:, 0]
    filled = [p.get_height() for p in drawn[0].axes[1].patches if p.get_facecolor()[:3] == (0.45, 0.45, 0.45)]
    np.testing.assert_allclose(filled, posterior, rtol=1e-4)


def test_a_vae_has_no_sum_weights(images):
    with pytest.raises(InputError, match="no sum weights"):
        pictures.sum_weights(build_model("VAE", (2, 6), "discrete", 3, 2), images, "unused.png")


def test_samples_and_reconstructions(drawn, model, images):
    pictures.samples(model, images, "unused.png", rows=1, columns=3)
    test, sampled = (axes.get_images()[0].get_array() for axes in drawn[0].axes)
    np.testing.assert_array_equal(test[:, 8:14], images[1].reshape(2, 6))
    np.testing.assert_allclose(sampled[:, 16:], model.sample(3, seed=0).numpy()[2].reshape(2, 6), rtol=1e-6)
    pictures.reconstructions(model, images, "unused.png", columns=2)
    rows = {axes.get_ylabel(): axes.get_images()[0].get_array() for axes in drawn[1].axes}
    assert list(rows) == ["test image", "reconstruction", "upper half", "inpainted"]
    np.testing.assert_array_equal(rows["inpainted"][0, :6], images[0, :6])  # what was seen comes back
    assert (rows["upper half"][1, :6] == 0.5).all() and not np.array_equal(rows["inpainted"][1, :6], images[0, 6:])
    np.testing.assert_allclose(rows["reconstruction"][:, 8:], model.reconstruct(images[:2], seed=0).numpy()[1].reshape(
        2, 6), rtol=1e-5)


def test_figure_3_lies_as_the_super_pixels_do(drawn):
    boxes = [(0, 0, 2, 2), (0, 2, 2, 2), (2, 0, 2, 2), (2, 2, 2, 2)]
    manifolds = [np.stack([np.full([4, 2, 2], leaf / 10), np.full([4, 2, 2], leaf / 10 + 0.5)]) for leaf in range(4)]
    preferences = {5: np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]]), 8: np.full([4, 2], 0.5)}
    pictures.latent_space(manifolds, boxes, preferences, "unused.png")
    left, right, beside = drawn[0].subfigs
    for part, shift in ((left, 0), (right, 0.5)):
        shown = [axes.get_images()[0].get_array() for axes in part.axes]
        assert [round(float(image[0, 0]) - shift, 3) for image in shown] == [0, 0.1, 0.2, 0.3]
        assert all(image.shape == (5, 5) and math.isclose(image[2, 0], 0.4) for image in shown)  # a line between stamps
    assert [axes.get_title() for axes in beside.axes[:2]] == ["5", "8"]
    np.testing.assert_array_equal(beside.axes[0].get_images()[0].get_array(), [[0.1, 0.2], [0.3, 0.4]])


@pytest.mark.parametrize("boxes", [[(0, 0, 2, 2)], [(0, 0, 2, 2), (0, 2, 2, 2)], [(0, 0, 2, 2), (2, 0, 2, 2)]])
def test_figure_3_of_a_single_super_pixel_row_or_column(drawn, boxes):
    preferences = {5: np.full([len(boxes), 2], 0.5)}
    pictures.latent_space([np.zeros([2, 4, 2, 2])] * len(boxes), boxes, preferences, "unused.png")
    assert [len(part.axes) for part in drawn[0].subfigs[:2]] == [len(boxes)] * 2


# --- the command line -------------------------------------------------------------------------------------------------

def run(*flags, expect=0):
    done = command_line.run("pictures.py", *flags)
    assert done.returncode == expect, done.stderr
    return done


def test_command_line(tmp_path):
    done = run("--pictures=region_graph", f"--out_dir={tmp_path}")
    assert done.stdout.strip() == str(tmp_path / "region_graph.png")
    assert (tmp_path / "region_graph.png").read_bytes().startswith(b"\x89PNG")


def test_learning_curves_are_named_after_their_protocol(tmp_path):
    done = run("--pictures=learning_curves", "--results_dir=results/paper", f"--out_dir={tmp_path}")
    assert done.stdout.strip() == str(tmp_path / "learning_curves_paper.png")


def test_bad_flags_are_one_line_and_write_nothing(tmp_path):
    err = run("--pictures=region_graph,samples", f"--out_dir={tmp_path}", expect=2).stderr
    assert len(err.strip().splitlines()) == 1 and err.startswith("error: ") and "--workdir" in err
    assert not list(tmp_path.iterdir())
