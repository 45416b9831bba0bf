"""Pictures of a model: its structure, what its sums prefer, its samples and reconstructions, its latent spaces.

Images are [n, pixels] in [0, 1]. A box is a rectangle (top, left, height, width), in pixels or in super-pixels.
"""

import itertools
import math

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spvae_tf.errors import InputError
from spvae_tf.infer import tile
from spvae_tf.model.region_graph import poon_domingos, rectangle
from spvae_tf.queries.masks import hide_half
from spvae_tf.reproduction.plots import save

# light to dark, so that lightness alone tells the value and black lines stay visible on it
SHADES = matplotlib.colors.ListedColormap(matplotlib.colormaps["YlGnBu"](np.linspace(0.0, 0.7, 256)))
SHADE_SCALE = matplotlib.colors.PowerNorm(0.5, 0, 1)  # most probabilities are below 0.3


def boxes_of(regions, width):
    """The boxes that regions fill in an image of `width` columns; raises InputError unless they are rectangles."""
    boxes = [rectangle(region, width) for region in regions]
    if None in boxes:
        raise InputError(f"{regions[boxes.index(None)]!r} is not a rectangle; only rectangles can be drawn")
    return boxes


def grid_of(boxes):
    """(tops, lefts), the rows and columns of super-pixels; raises InputError unless each pair is the corner of one."""
    corners = {box[:2] for box in boxes}
    tops, lefts = (sorted({corner[n] for corner in corners}) for n in (0, 1))
    if not len(boxes) == len(corners) == len(tops) * len(lefts):
        raise InputError(f"{len(boxes)} leaf regions begin at {len(tops)} rows and {len(lefts)} columns of pixels; "
                         "only a grid with one at each crossing can be drawn")
    return tops, lefts


def region_graph(path):
    """The region graph of 2 × 2 super-pixels (section 3.3), and the SPN with two nodes per region over it."""
    graph = poon_domingos(2, 2, 1)
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    places = {region: (x, level) for level, regions in enumerate((graph.leaf_regions, *graph.levels))
              for region, x in zip(regions, _side_by_side(len(regions)))}
    panels = ((_draw_regions, 1.3, 1.6, f"region graph: {len(graph.regions)} regions, {len(graph.partitions)} "
               "partitions (dots)"), (_draw_spn, 2.4, 2.4, "SPN: sums +, products ×, two VAEs for each super-pixel"))
    for axes, (draw, width, height, title) in zip(figure.subplots(1, 2, width_ratios=(1, 1.8)), panels):
        draw(axes, graph, {region: (width * x, height * level) for region, (x, level) in places.items()})
        axes.set_title(title)
        axes.autoscale_view()
        axes.set_aspect("equal", adjustable="datalim")
        axes.axis("off")
    save(figure, path)


def _side_by_side(count, distance=1.0):
    """x of `count` things in a row, centred on 0."""
    return [distance * (n - (count - 1) / 2) for n in range(count)]


def _draw_regions(axes, graph, places):
    """Regions as shaded grids, partitions as dots between a region and its children."""
    for region, (x, y) in places.items():
        _draw_scope(axes, region, x, y, 0.5)
        partitions = graph.partitions_of(region)
        for partition, shift in zip(partitions, _side_by_side(len(partitions), 0.7)):
            dot = x + shift, y - 0.62
            axes.plot(*dot, "o", color="black", ms=5, zorder=3)
            _draw_edges(axes, dot, [(x, y), *(places[child] for child in partition.children)])


def _draw_spn(axes, graph, places):
    """Two leaves of each super-pixel, two sums of every other region but the root; its products in a row below them."""
    nodes = {region: [(x + shift, y) for shift in _side_by_side(1 if region == graph.root else 2, 0.7)]
             for region, (x, y) in places.items()}
    for region, (x, y) in places.items():
        products = [children for partition in graph.partitions_of(region)
                    for children in itertools.product(*(nodes[child] for child in partition.children))]
        for children, shift in zip(products, _side_by_side(len(products), 0.5)):
            product = x + shift, y - 0.85
            _draw_edges(axes, product, [*nodes[region], *children])
            _draw_node(axes, *product, "×")
        for node in nodes[region]:
            if products:
                _draw_node(axes, *node, "+")
            else:
                _draw_scope(axes, region, *node, 0.42)


def _draw_scope(axes, region, x, y, size):
    """The 2 × 2 super-pixels with the region's shaded."""
    for pixel, (row, column) in enumerate(np.ndindex(2, 2)):
        axes.add_patch(Rectangle(
            (x + (column - 1) * size / 2, y - row * size / 2), size / 2, size / 2,
            facecolor="#0072B2" if pixel in region.scope else "white", edgecolor="0.3", lw=0.8, zorder=3))


def _draw_node(axes, x, y, sign):
    axes.plot(x, y, "o", color="white", mec="black", ms=10, mew=0.9, zorder=3)
    axes.annotate(sign, (x, y), ha="center", va="center", fontsize=9, zorder=4)


def _draw_edges(axes, start, ends):
    for end in ends:
        axes.plot(*zip(end, start), color="0.55", lw=0.7, zorder=1)


def sum_weights(model, images, path):
    """How an SPVAE that has sums, over a grid of super-pixels, splits images: by its sum weights and by test images."""
    if not model.graph.partitions:
        raise InputError("a model of a single region has no sum weights to draw")
    boxes = grid_boxes(model.graph, model.image_shape[1])
    unseen = np.zeros([1, model.graph.num_variables], bool)
    prior = model.posterior(unseen.astype(np.float32), num_samples=1, observed=unseen)  # of nothing: the weights alone
    posterior = model.posterior(images, seed=0)
    figure = Figure(figsize=(12, 5.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_splits(left, model.graph, boxes, prior, "by the sum weights")
    _draw_splits(right, model.graph, boxes, posterior, f"given an image, mean of {len(images):,} test images")
    figure.colorbar(matplotlib.cm.ScalarMappable(SHADE_SCALE, SHADES), ax=[left, right], shrink=0.7, aspect=30,
                    label="probability of the region", ticks=[0, 0.05, 0.2, 0.5, 1])
    figure.supxlabel("rectangles of super-pixels by size; a cut is as wide as its probability, given the region; "
                     "super-pixels are filled up to the probability of their left VAE", fontsize=9)
    save(figure, path)


def grid_boxes(graph, width):
    """dict region -> its box, counted in super-pixels."""
    boxes = dict(zip(graph.regions, boxes_of(graph.regions, width)))
    tops, lefts = grid_of([boxes[leaf] for leaf in graph.leaf_regions])
    return {region: (tops.index(top), lefts.index(left),
                     sum(top <= t < top + height for t in tops), sum(left <= t < left + width for t in lefts))
            for region, (top, left, height, width) in boxes.items()}


def _draw_splits(axes, graph, boxes, states, title):
    """A panel of `sum_weights`: rectangles of one size make a block, in which they lie as in the image."""
    split = dict(zip(graph.partitions, states.partitions.numpy().mean(axis=0)))
    first_vae = dict(zip(graph.leaf_regions, states.leaves.numpy().mean(axis=0)[:, 0]))
    rows, columns = boxes[graph.root][2:]
    for region, (top, left, height, width) in boxes.items():
        x = _block_start(width, columns) + left * (width + 0.25)
        y = _block_start(height, rows) + top * (height + 0.25)
        reached = sum(split[partition] for partition in graph.partitions_of(region))
        shade = "white" if region in first_vae else SHADES(SHADE_SCALE(reached))
        axes.add_patch(Rectangle((x, y), width, height, facecolor=shade, edgecolor="0.4", lw=0.7))
        for partition in graph.partitions_of(region):
            _draw_cuts(axes, x - left, y - top, [boxes[child] for child in partition.children], boxes[region],
                       split[partition] / max(reached, 1e-30))
        if region in first_vae:
            axes.add_patch(Rectangle((x, y + 1 - first_vae[region]), 1, first_vae[region], facecolor="0.45"))
    axes.set(xlim=(-0.5, _block_start(columns, columns) + columns + 0.5),
             ylim=(_block_start(rows, rows) + rows + 0.5, -0.5), aspect="equal", title=title)
    axes.axis("off")


def _block_start(size, count):
    """Where the block of rectangles of a size begins: before it lie those of all smaller sizes."""
    return sum((count - s + 1) * (s + 0.25) + 0.7 for s in range(1, size))


def _draw_cuts(axes, x, y, children, box, probability):
    """The upper and left sides of a region's children, where these are not its own."""
    style = dict(color="black", lw=4 * probability, solid_capstyle="butt")
    for top, left, height, width in children:
        if top > box[0]:
            axes.plot([x + left, x + left + width], [y + top, y + top], **style)
        if left > box[1]:
            axes.plot([x + left, x + left], [y + top, y + top + height], **style)


def samples(model, images, path, rows=6, columns=10):
    """Test images beside the model's own: E[x | z] of trees and codes drawn from the prior."""
    drawn = model.sample(rows * columns, seed=0).numpy()
    figure = Figure(figsize=(9, 0.45 + 4.4 * rows / columns), layout="constrained")
    shown = {"test images": images[:rows * columns], "samples": drawn}
    for axes, (title, pixels) in zip(figure.subplots(1, 2), shown.items()):
        _show(axes, tile(pixels.reshape(-1, *model.image_shape), columns), title)
    save(figure, path)


def reconstructions(model, images, path, columns=12):
    """The first test images, through the model, and the lower half drawn from the upper."""
    images = images[:columns]
    seen = hide_half("bottom", len(images), model.image_shape)
    rows = {"test image": images, "reconstruction": model.reconstruct(images, seed=0).numpy(),
            "upper half": np.where(seen, images, 0.5),
            "inpainted": model.inpaint(images, seen, num_draws=1, seed=0).numpy()[:, 0]}
    figure = Figure(figsize=(9, 9 * len(rows) / (columns + 2)), layout="constrained")
    for axes, (title, pixels) in zip(figure.subplots(len(rows), 1), rows.items()):
        _show(axes, tile(pixels.reshape(-1, *model.image_shape), columns))
        axes.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9)
    save(figure, path)


def _show(axes, image, title=None):
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[], title=title)
    axes.spines[:].set_visible(False)


def latent_space(manifolds, boxes, preferences, path):
    """Figure 3, of figure3's functions: every leaf VAE's latent space, and which of a super-pixel's a class prefers."""
    tops, lefts = grid_of(boxes)
    figure = Figure(figsize=(13, 5.4), layout="constrained")
    left, right, beside = figure.subfigures(1, 3, width_ratios=(1, 1, 0.36), wspace=0.03)
    for part, title, component in ((left, "left VAE", 0), (right, "right VAE", 1)):
        part.suptitle(title)
        grid = part.subplots(len(tops), len(lefts), squeeze=False, gridspec_kw=dict(wspace=0.02, hspace=0.02))
        for images, (top, start, _, _) in zip(manifolds, boxes):
            stamps = images[component]
            _show(grid[tops.index(top), lefts.index(start)],
                  tile(stamps, math.isqrt(len(stamps)), margin=1, background=0.4))
    beside.suptitle("preferred by class")
    grid = beside.subplots(-(-len(preferences) // 2), 2, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (label, leaves) in zip(grid.flat, preferences.items()):
        drawn = axes.imshow(leaves[:, 0].reshape(len(tops), len(lefts)), cmap="cividis", vmin=0, vmax=1)
        axes.set_title(label, fontsize=9, pad=2)
    beside.colorbar(drawn, ax=grid, location="bottom", label="P(left VAE | class)", aspect=15)
    save(figure, path)
