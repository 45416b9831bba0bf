"""Region graphs: which sets of pixels the sub-SPNs of an SPVAE model, and how larger sets split into smaller.

A region is a scope. A partition splits a region into disjoint child regions that together cover it. Sum nodes (internal
regions) and VAEs (leaf regions) live in regions, product nodes in partitions, so every SPN built on a region graph is
complete and decomposable (section 2; Poon & Domingos, 2011). What does not fit the definitions raises InputError.
"""

import json
import math
from dataclasses import dataclass
from itertools import chain, combinations, groupby, pairwise
from operator import lt
from pathlib import Path

import numpy as np

from spvae_tf import files
from spvae_tf.errors import InputError, check_integer, short

LARGE = 50_000  # regions; more take minutes and gigabytes


@dataclass(frozen=True)
class Region:
    """A scope: the pixels that every node of the region models, a strictly increasing tuple of ints >= 0, row-major."""

    scope: tuple[int, ...]

    def __post_init__(self):
        scope = self.scope
        if not isinstance(scope, tuple) or not set(map(type, scope)) <= {int}:
            raise InputError(f"the scope of a region must be a tuple of ints; got {short(scope)}")
        if not scope:
            raise InputError("the scope of a region is empty; it must hold at least one pixel")
        if not all(map(lt, scope, scope[1:])):
            raise InputError(f"{self!r}: pixels must be strictly increasing (sorted, no duplicates)")
        if scope[0] < 0:
            raise InputError(f"{self!r}: pixel {short(scope[0])} is negative; pixels are counted from 0")

    def __hash__(self):
        # not of the whole scope, which is hashed often and long: the ends tell regions apart, equality decides
        return hash((len(self.scope), self.scope[:4], self.scope[-4:]))

    def __repr__(self):
        if len(self.scope) <= 6:
            return f"Region({short(self.scope)})"
        first, last = ", ".join(map(short, self.scope[:3])), short(self.scope[-1])
        return f"Region(({first}, ..., {last}): {len(self.scope)} pixels)"


@dataclass(frozen=True)
class Partition:
    """A split of a region into at least two children whose scopes are a set partition of its own: place of products."""

    region: Region
    children: tuple[Region, ...]

    def __post_init__(self):
        if not isinstance(self.region, Region):
            raise InputError(f"a partition splits a Region; got {short(self.region)}")
        if not isinstance(self.children, tuple) or not all(isinstance(c, Region) for c in self.children):
            raise InputError(f"partition of {self.region}: children must be a tuple of Regions; "
                             f"got {short(self.children)}")
        if len(self.children) < 2:
            raise InputError(f"partition of {self.region}: at least 2 children are needed; got {len(self.children)}")
        pixels = sorted(chain.from_iterable(child.scope for child in self.children))
        if tuple(pixels) != self.region.scope:
            raise InputError(f"partition of {self.region} {_partition_fault(self, pixels)}")


class RegionGraph:
    """A rooted acyclic graph of regions and of partitions between them, each given once; validated when built.

    Equal sets of regions and partitions give equal graphs. A child is a strict subset of its parent, so there are no
    cycles. The height of a region is the longest path down to a leaf region, which has height 0. The scope of the one
    root, from which every region can be reached, is 0..n-1.

    Attributes:
      regions: children before parents: sorted by height, then by scope. Starts with `leaf_regions`.
      partitions: grouped by parent in the order of `regions`.
      leaf_regions: the regions without a partition, by scope (super-pixels: row-major).
      levels: internal regions of height 1, 2, ..., each a tuple sorted by scope; the root is the last.
      root, num_variables: the region that holds every pixel; their number, n.
    """

    def __init__(self, regions, partitions):
        regions, partitions = tuple(regions), tuple(partitions)
        _check_regions(regions)
        _check_partitions(partitions, set(regions))
        self.root = _find_root(regions, partitions)
        self.num_variables = len(self.root.scope)
        partitions_of = {region: [] for region in regions}
        for partition in partitions:
            partitions_of[partition.region].append(partition)
        heights = _heights(partitions_of)
        self.regions = tuple(sorted(regions, key=lambda region: (heights[region], region.scope)))
        self.leaf_regions, *levels = (tuple(level) for _, level in groupby(self.regions, heights.get))
        self.levels = tuple(levels)
        self._index = {region: i for i, region in enumerate(self.regions)}
        self._partitions_of = {region: tuple(sorted(partitions_of[region], key=self._child_indices))
                               for region in self.regions}
        self.partitions = tuple(chain.from_iterable(self._partitions_of.values()))

    def partitions_of(self, region):
        """The partitions of a region of this graph, in the order of `partitions`; none of a leaf region."""
        if region not in self._partitions_of:
            raise InputError(f"{region} is not a region of {self}")
        return self._partitions_of[region]

    def to_json(self):
        """`{"regions": [[pixel, ...], ...], "partitions": [{"region": index, "children": [index, ...]}, ...]}`."""
        partitions = [{"region": self._index[p.region], "children": self._child_indices(p)} for p in self.partitions]
        return json.dumps({"regions": [region.scope for region in self.regions], "partitions": partitions})

    @classmethod
    def from_json(cls, text):
        """The graph of a JSON text of the form of `to_json`, in any order; InputError when it is not one."""
        try:
            content = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"region graph is not valid JSON: {error}") from None
        scopes, partitions = _json_fields(content, "a region graph", ("regions", "partitions"))
        regions = [Region(tuple(scope)) for scope in _json_list(scopes, '"regions"', list)]
        partitions = _json_list(partitions, '"partitions"', dict)
        return cls(regions, [_json_partition(partition, regions) for partition in partitions])

    def save(self, path):
        """Writes the graph as JSON."""
        files.write_text(files.expand(path), self.to_json() + "\n")

    @classmethod
    def load(cls, path):
        """The graph of a JSON file; InputError, which names the file, when it is not one."""
        try:
            return cls.from_json(Path(files.expand(path)).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"cannot read region graph file {path}: {error.strerror}") from None
        except (UnicodeDecodeError, InputError) as error:
            raise InputError(f"region graph file {path}: {error}") from None

    def _child_indices(self, partition):
        return [self._index[child] for child in partition.children]

    def __eq__(self, other):
        if not isinstance(other, RegionGraph):
            return NotImplemented
        return self.regions == other.regions and self.partitions == other.partitions

    def __hash__(self):
        return hash((self.regions, self.partitions))

    def __repr__(self):
        return (f"RegionGraph({self.num_variables} variables, {len(self.regions)} regions, "
                f"{len(self.leaf_regions)} leaf regions, {len(self.partitions)} partitions)")


def poon_domingos(height, width, delta, allow_large_graph=False):
    """The region graph of all axis-aligned rectangles on a grid (section 3.3; Poon & Domingos, 2011).

    The image has height × width pixels. Grid lines are the rows 0, delta, 2 delta, ..., height and the columns 0,
    delta, ..., width; the last step may be smaller. The largest delta, max(height, width), gives one region. Every
    rectangle between grid lines is a region; every grid line that cuts it gives a partition into two rectangles. The
    rectangles that no line cuts, the super-pixels, are the leaf regions.

    2 x 2 super-pixels a b / c d have 9 regions, 4 leaf regions and 6 partitions:

        leaf regions  a, b, c, d
        level 1       ab = a|b,  ac = a|c,  bd = b|d,  cd = c|d
        level 2       abcd = ab|cd = ac|bd   (the root)

    Raises InputError for more than LARGE regions, unless `allow_large_graph`.
    """
    height, width = check_integer("height", height), check_integer("width", width)
    delta = check_integer("delta", delta, 1, max(height, width))
    rows, columns = [*range(0, height, delta), height], [*range(0, width, delta), width]
    if not allow_large_graph:
        # a rectangle is two rows and two columns of the grid, a partition a third of either besides
        (heights, splits), (widths, splits_across) = ([math.comb(len(lines), n) for n in (2, 3)]
                                                      for lines in (rows, columns))
        _check_size(f"poon_domingos({height}, {width}, delta={delta})", heights * widths,
                    splits * widths + splits_across * heights, (len(rows) - 1) * (len(columns) - 1))
    regions = {(top, bottom, left, right): Region(_rectangle_scope(top, bottom, left, right, width))
               for top, bottom in combinations(rows, 2) for left, right in combinations(columns, 2)}
    partitions = []
    for (top, bottom, left, right), region in regions.items():
        cuts = [((top, row, left, right), (row, bottom, left, right)) for row in rows if top < row < bottom]
        cuts += [((top, bottom, left, col), (top, bottom, col, right)) for col in columns if left < col < right]
        partitions += [Partition(region, (regions[first], regions[second])) for first, second in cuts]
    return RegionGraph(regions.values(), partitions)


def single_region(num_variables):
    """The region graph of the classical VAE: one region of all pixels, root and leaf region, no partition."""
    return RegionGraph([Region(tuple(range(check_integer("num_variables", num_variables))))], [])


def _check_size(what, num_regions, num_partitions, num_leaves):
    """Raises InputError for a graph that is too large to be built by mistake."""
    if num_regions > LARGE:
        raise InputError(f"{what} has {num_regions:,} regions, {num_partitions:,} partitions and, with two in each "
                         f"internal region but the root, {2 * (num_regions - num_leaves) - 1:,} sums; a graph of more "
                         f"than {LARGE:,} regions needs allow_large_graph=True (--config.allow_large_graph)")


def random_binary_trees(num_variables, depth, num_repetitions, seed, allow_large_graph=False):
    """Random binary trees of regions that share the root (Peharz et al., 2018, RAT-SPNs).

    In every repetition the root is split into two random halves, whose sizes differ by at most one, and these are split
    again, `depth` times in all, with 2 <= 2**depth <= num_variables. Regions and partitions drawn twice are one.
    Raises InputError for more than LARGE regions, unless `allow_large_graph`.
    """
    num_variables = check_integer("num_variables", num_variables, 2)
    depth = check_integer("depth", depth, 1, num_variables.bit_length() - 1)
    num_repetitions = check_integer("num_repetitions", num_repetitions)
    if not allow_large_graph:
        splits, leaves = num_repetitions * (2**depth - 1), num_repetitions * 2**depth
        _check_size(f"random_binary_trees({num_variables}, {depth}, {num_repetitions})", 2 * splits + 1, splits, leaves)
    rng = np.random.default_rng(check_integer("seed", seed, 0))
    root = Region(tuple(range(num_variables)))
    partitions = set()
    for _ in range(num_repetitions):
        leaves = [root]
        for _ in range(depth):
            splits = [Partition(region, _random_halves(region, rng)) for region in leaves]
            partitions.update(splits)
            leaves = [child for split in splits for child in split.children]
    return RegionGraph({root}.union(*(partition.children for partition in partitions)), partitions)


def _random_halves(region, rng):
    pixels = rng.permutation(region.scope)
    halves = pixels[:len(pixels) // 2], pixels[len(pixels) // 2:]
    # in one order, so that equal splits are equal partitions
    return tuple(Region(scope) for scope in sorted(tuple(sorted(half.tolist())) for half in halves))


def rectangle(region, width):
    """(top, left, height, width) of the rectangle that a region fills in an image so wide; None if it fills none."""
    width = check_integer("width", width)
    (top, left), (bottom, right) = divmod(region.scope[0], width), divmod(region.scope[-1], width)
    box = (top, left, bottom + 1 - top, right + 1 - left)
    fills = (len(region.scope) == box[2] * box[3]
             and region.scope == _rectangle_scope(top, bottom + 1, left, right + 1, width))
    return box if fills else None


def _rectangle_scope(top, bottom, left, right, width):
    """Pixels of rows top..bottom-1 and columns left..right-1 of an image `width` columns wide."""
    rows = (range(row * width + left, row * width + right) for row in range(top, bottom))
    return tuple(chain.from_iterable(rows))


def _heights(partitions_of):
    heights = {}
    for region in sorted(partitions_of, key=lambda region: len(region.scope)):  # children have fewer pixels
        below = [heights[child] for partition in partitions_of[region] for child in partition.children]
        heights[region] = 1 + max(below, default=-1)
    return heights


def _check_regions(regions):
    if not regions:
        raise InputError("a region graph needs at least one region; got none")
    seen = set()
    for region in regions:
        if not isinstance(region, Region):
            raise InputError(f"the regions of a region graph must be Regions; got {short(region)}")
        if region in seen:
            raise InputError(f"{region} is given twice; each region must be given once")
        seen.add(region)


def _check_partitions(partitions, regions):
    seen = set()
    for partition in partitions:
        if not isinstance(partition, Partition):
            raise InputError(f"the partitions of a region graph must be Partitions; got {short(partition)}")
        for region in (partition.region, *partition.children):
            if region not in regions:
                raise InputError(f"partition of {partition.region}: {region} is not a region of the graph")
        split = (partition.region, frozenset(partition.children))
        if split in seen:
            raise InputError(f"a partition of {partition.region} is given twice, with children "
                             f"{_some(partition.children)}; each must be given once")
        seen.add(split)


def _find_root(regions, partitions):
    """The only region that is no child: with no cycles, every region is then reachable from it."""
    children = set(chain.from_iterable(partition.children for partition in partitions))
    parentless = [region for region in regions if region not in children]
    root, *others = sorted(parentless, key=lambda region: len(region.scope), reverse=True)
    if others:
        raise InputError(f"a region graph has one root, but {others[0]} is a child of no region, so it "
                         f"cannot be reached from the root {root}")
    if root.scope[-1] != len(root.scope) - 1:
        raise InputError(f"the root {root} must hold the pixels 0..n-1 without gaps")
    return root


def _partition_fault(partition, pixels):
    """Why the children's pixels (sorted) are not the parent's scope."""
    shared = next((pixel for pixel, following in pairwise(pixels) if pixel == following), None)
    if shared is not None:
        owners = [child for child in partition.children if shared in child.scope]
        return f"is not decomposable: its children {_some(owners)} share pixel {short(shared)}"
    missing = sorted(set(partition.region.scope) - set(pixels))
    if missing:
        return f"does not cover the region: no child has its pixel {short(missing[0])}"
    outside = min(set(pixels) - set(partition.region.scope))
    owner = next(child for child in partition.children if outside in child.scope)
    return f"goes beyond the region: its child {owner} has pixel {short(outside)}, which the region has not"


def _json_fields(value, what, keys):
    if not isinstance(value, dict) or set(value) != set(keys):
        given = f"the keys {short(list(value))}" if isinstance(value, dict) else short(value)
        raise InputError(f"{what} in JSON must be an object with exactly the keys {', '.join(keys)}; got {given}")
    return [value[key] for key in keys]


def _json_list(value, what, kind):
    """The value; raises InputError unless it is a list of `kind`."""
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        names = {list: "lists of pixels", dict: "objects", int: "region indices"}
        raise InputError(f"{what} in JSON must be a list of {names[kind]}; got {short(value)}")
    return value


def _json_partition(value, regions):
    parent, children = _json_fields(value, "a partition", ("region", "children"))
    indices = _json_list([parent], '"region"', int) + _json_list(children, '"children"', int)
    for index in indices:
        if not 0 <= index < len(regions):
            raise InputError(f"region index {short(index)} in a partition is unknown; "
                             f"it must be in 0..{len(regions) - 1}")
    return Partition(regions[parent], tuple(regions[child] for child in children))


def _some(regions):
    """The first two regions in words."""
    return " and ".join(map(repr, regions[:2])) + (", ..." if len(regions) > 2 else "")
