"""Region graphs: counts of the paper, brute force over the definitions, JSON, and every error."""

import itertools
import json
import math
import os
import pickle
import time

import numpy as np
import pytest

from spvae_tf.errors import InputError
from spvae_tf.model import region_graph
from spvae_tf.model.region_graph import Partition, Region, RegionGraph

GRIDS = [(28, 28, 7), (32, 32, 8), (30, 20, 7), (5, 9, 3), (4, 4, 1), (1, 6, 2), (6, 1, 4), (3, 8, 5),
         (2, 2, 2)]
GRAPHS = [region_graph.poon_domingos(*grid) for grid in GRIDS] + [
    region_graph.single_region(5),
    region_graph.random_binary_trees(16, 3, 4, seed=0),
    region_graph.random_binary_trees(13, 2, 3, seed=1),
    # One partition of three children.
    RegionGraph([Region((0, 1, 2)), Region((0,)), Region((1,)), Region((2,))],
                [Partition(Region((0, 1, 2)), (Region((0,)), Region((1,)), Region((2,))))]),
]
IDS = [f"{i}-{graph!r}" for i, graph in enumerate(GRAPHS)]

A, B, C, D = [Region((i,)) for i in range(4)]
AB, CD, ROOT = Region((0, 1)), Region((2, 3)), Region((0, 1, 2, 3))
SPLIT_ROOT, SPLIT_AB, SPLIT_CD = Partition(ROOT, (AB, CD)), Partition(AB, (A, B)), Partition(CD, (C, D))


def count_spn(graph, num_sums, num_components):
    """Sums, products and sum weights of the SPN of section 3.3 on a region graph."""
    nodes = {region: num_components for region in graph.leaf_regions}
    sums = products = weights = 0
    for region in itertools.chain.from_iterable(graph.levels):
        nodes[region] = 1 if region == graph.root else num_sums
        crossed = sum(math.prod(nodes[child] for child in p.children) for p in graph.partitions_of(region))
        sums, products, weights = sums + nodes[region], products + crossed, weights + nodes[region] * crossed
    return sums, products, weights


@pytest.mark.parametrize("size, delta", [(28, 7), (32, 8)])
def test_counts_of_the_paper(size, delta):
    graph = region_graph.poon_domingos(size, size, delta)
    assert (len(graph.regions), len(graph.leaf_regions), len(graph.partitions)) == (100, 16, 200)
    assert count_spn(graph, num_sums=2, num_components=2) == (167, 800, 1576)
    assert graph.num_variables == size * size
    # A rectangle of h x w super-pixels has height h + w - 2 and as many partitions.
    assert len(graph.levels) == 6
    for height, level in enumerate(graph.levels, start=1):
        for region in level:
            assert len(graph.partitions_of(region)) == height
            assert sum(region_graph.rectangle(region, size)[2:]) // delta - 2 == height


def test_worked_example_of_the_docstring():
    ac, bd = Region((0, 2)), Region((1, 3))
    graph = region_graph.poon_domingos(2, 2, 1)
    assert graph.regions == (A, B, C, D, AB, ac, bd, CD, ROOT)
    assert graph.leaf_regions == (A, B, C, D)
    assert graph.levels == ((AB, ac, bd, CD), (ROOT,))
    assert graph.root == ROOT
    assert graph.partitions == (SPLIT_AB, Partition(ac, (A, C)), Partition(bd, (B, D)), SPLIT_CD,
                                SPLIT_ROOT, Partition(ROOT, (ac, bd)))


@pytest.mark.parametrize("height, width, delta", GRIDS)
def test_poon_domingos_is_every_rectangle_and_every_cut(height, width, delta):
    """Against an enumeration of all rectangles of pixels, with masks instead of scopes."""
    graph = region_graph.poon_domingos(height, width, delta)
    pixels = np.arange(height * width).reshape(height, width)

    def on_grid(line, size):
        return line % delta == 0 or line == size

    regions, partitions = set(), set()
    for t, b in itertools.combinations(range(height + 1), 2):
        for l, r in itertools.combinations(range(width + 1), 2):  # noqa: E741
            if not (on_grid(t, height) and on_grid(b, height) and on_grid(l, width) and on_grid(r, width)):
                continue
            box = pixels[t:b, l:r]
            regions.add(tuple(box.ravel().tolist()))
            splits = [np.split(box, [i], axis=0) for i in range(1, b - t) if on_grid(t + i, height)]
            splits += [np.split(box, [j], axis=1) for j in range(1, r - l) if on_grid(l + j, width)]
            partitions |= {(tuple(box.ravel().tolist()), *(tuple(part.ravel().tolist()) for part in split))
                           for split in splits}
    assert {region.scope for region in graph.regions} == regions
    assert {(p.region.scope, *(child.scope for child in p.children)) for p in graph.partitions} == partitions
    assert len(graph.regions) == len(regions) and len(graph.partitions) == len(partitions)


def test_poon_domingos_uneven_grid():
    """30 x 20 in steps of 7: rows 0 7 14 21 28 30 and columns 0 7 14 20, so 5 x 3 super-pixels."""
    graph = region_graph.poon_domingos(30, 20, 7)
    boxes = [region_graph.rectangle(region, 20) for region in graph.leaf_regions]
    assert boxes == [(top, left, height, width)
                     for top, height in [(0, 7), (7, 7), (14, 7), (21, 7), (28, 2)]
                     for left, width in [(0, 7), (7, 7), (14, 6)]]
    assert len(graph.regions) == math.comb(6, 2) * math.comb(4, 2)


@pytest.mark.parametrize("graph", GRAPHS, ids=IDS)
def test_graph_obeys_the_definitions(graph):
    assert graph.root.scope == tuple(range(graph.num_variables))
    for partition in graph.partitions:
        assert len(partition.children) >= 2
        for one, other in itertools.combinations(partition.children, 2):  # decomposable
            assert not set(one.scope) & set(other.scope)
        assert set.union(*(set(child.scope) for child in partition.children)) == set(partition.region.scope)
    reached, frontier = set(), [graph.root]
    while frontier:
        region = frontier.pop()
        reached.add(region)
        frontier += [c for p in graph.partitions_of(region) for c in p.children if c not in reached]
    assert reached == set(graph.regions) and len(reached) == len(graph.regions)


@pytest.mark.parametrize("graph", GRAPHS, ids=IDS)
def test_orders_and_levels(graph):
    height = {}
    for region in graph.regions:  # children before parents, or this is a KeyError
        children = [c for p in graph.partitions_of(region) for c in p.children]
        height[region] = 1 + max(height[c] for c in children) if children else 0
    assert list(graph.regions) == sorted(graph.regions, key=lambda r: (height[r], r.scope))
    assert graph.leaf_regions == tuple(r for r in graph.regions if not graph.partitions_of(r))
    assert list(graph.leaf_regions) == sorted(graph.leaf_regions, key=lambda r: r.scope)
    for i, level in enumerate(graph.levels, start=1):
        assert level and all(height[region] == i for region in level)
    assert graph.leaf_regions + tuple(itertools.chain(*graph.levels)) == graph.regions
    assert graph.partitions == tuple(p for r in graph.regions for p in graph.partitions_of(r))
    assert all(p.region == r for r in graph.regions for p in graph.partitions_of(r))


def test_height_is_the_longest_path():
    """{0,1,2,3} splits into two leaves {0,1} {2,3} and, deeper, into {0,1,2} {3} with {0,1} | {2}."""
    leaves = Region((0, 1)), Region((2,)), Region((3,)), Region((2, 3))
    inner, root = Region((0, 1, 2)), Region((0, 1, 2, 3))
    graph = RegionGraph([root, inner, *leaves], [
        Partition(root, (leaves[0], leaves[3])), Partition(root, (inner, leaves[2])),
        Partition(inner, (leaves[0], leaves[1]))])
    assert graph.levels == ((inner,), (root,))
    assert graph.leaf_regions == (leaves[0], leaves[1], leaves[3], leaves[2])


@pytest.mark.parametrize("graph", GRAPHS, ids=IDS)
def test_order_of_the_arguments_does_not_matter(graph):
    rng = np.random.default_rng(0)
    regions = [graph.regions[i] for i in rng.permutation(len(graph.regions))]
    partitions = [graph.partitions[i] for i in rng.permutation(len(graph.partitions))]
    shuffled = RegionGraph(regions, partitions)
    assert shuffled == graph and hash(shuffled) == hash(graph) and shuffled.levels == graph.levels


def test_equality():
    graph = region_graph.poon_domingos(4, 4, 2)
    assert graph == region_graph.poon_domingos(4, 4, 2)
    assert graph != region_graph.poon_domingos(4, 4, 1)
    row = region_graph.poon_domingos(1, 4, 1)  # without {0,1} | {2,3} of the root: the same regions
    fewer = [p for p in row.partitions if p != SPLIT_ROOT]
    assert len(fewer) == len(row.partitions) - 1 and row != RegionGraph(row.regions, fewer)
    assert graph != "graph"
    assert pickle.loads(pickle.dumps(graph)) == graph


def test_single_region_is_the_coarsest_grid():
    graph = region_graph.single_region(12)
    assert graph.regions == graph.leaf_regions == (graph.root,) == (Region(tuple(range(12))),)
    assert graph.partitions == graph.levels == graph.partitions_of(graph.root) == ()
    assert graph == region_graph.poon_domingos(3, 4, 4)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_random_binary_trees(depth):
    graph = region_graph.random_binary_trees(200, depth, num_repetitions=3, seed=7)
    assert len(graph.levels) == depth
    assert len(graph.partitions_of(graph.root)) == 3
    assert len(graph.partitions) == 3 * (2**depth - 1)  # no split of 200 pixels is drawn twice
    assert len(graph.regions) == 1 + 3 * (2 ** (depth + 1) - 2)
    assert {len(region.scope) for region in graph.leaf_regions} <= {200 // 2**depth, -(-200 // 2**depth)}
    for partition in graph.partitions:
        sizes = [len(child.scope) for child in partition.children]
        assert len(sizes) == 2 and abs(sizes[0] - sizes[1]) <= 1


def test_random_binary_trees_seed():
    graph = region_graph.random_binary_trees(32, 3, 2, seed=0)
    assert graph == region_graph.random_binary_trees(32, 3, 2, seed=0)
    assert graph != region_graph.random_binary_trees(32, 3, 2, seed=1)


def test_random_binary_trees_merge_equal_splits():
    """Two pixels have one split; four have three into pairs, six pairs, all drawn in fifty repetitions."""
    assert region_graph.random_binary_trees(2, 1, 5, seed=0) == region_graph.poon_domingos(1, 2, 1)
    graph = region_graph.random_binary_trees(4, 2, 50, seed=0)
    assert (len(graph.regions), len(graph.partitions)) == (1 + 6 + 4, 3 + 6)


@pytest.mark.parametrize("delta, num_regions, seconds", [(4, 784, 1.0), (2, 11025, 20.0)])
def test_large_grids_build_quickly(delta, num_regions, seconds):
    """11,025 regions take about two seconds; the bound leaves room for a busy machine."""
    start = time.process_time()
    graph = region_graph.poon_domingos(28, 28, delta)
    assert time.process_time() - start < seconds
    assert len(graph.regions) == num_regions


def test_rectangle():
    assert region_graph.rectangle(Region((0,)), 1) == (0, 0, 1, 1)
    assert region_graph.rectangle(Region((6, 7, 11, 12)), 5) == (1, 1, 2, 2)
    assert region_graph.rectangle(Region(tuple(range(12))), 4) == (0, 0, 3, 4)
    assert region_graph.rectangle(Region((3, 4)), 5) == (0, 3, 1, 2)
    assert region_graph.rectangle(Region((1, 5)), 4) == (0, 1, 2, 1)


@pytest.mark.parametrize("scope, width", [
    ((3, 4), 4),  # wraps from the end of one row to the start of the next
    ((1, 4), 4),  # right to left
    ((0, 2), 4),  # a gap
    ((0, 3), 2),  # a diagonal
    ((0, 1, 3, 5), 3),  # corners and count of a 2 x 3 rectangle do not fit
    ((0, 2, 4, 5), 4),  # corners and count of a 2 x 2 rectangle, but other pixels
    ((0, 10**15), 3),
])
def test_rectangle_is_none_for_other_shapes(scope, width):
    assert region_graph.rectangle(Region(scope), width) is None


@pytest.mark.parametrize("height, width", [(3, 4), (2, 5), (1, 3)])
def test_rectangle_against_all_subsets(height, width):
    pixels = np.arange(height * width).reshape(height, width)
    boxes = {tuple(pixels[t:b, l:r].ravel().tolist()): (t, l, b - t, r - l)
             for t, b in itertools.combinations(range(height + 1), 2)
             for l, r in itertools.combinations(range(width + 1), 2)}  # noqa: E741
    for size in range(1, height * width + 1):
        for scope in itertools.combinations(range(height * width), size):
            assert region_graph.rectangle(Region(scope), width) == boxes.get(scope)


@pytest.mark.parametrize("graph", GRAPHS, ids=IDS)
def test_json_round_trip(graph, tmp_path):
    text = graph.to_json()
    again = RegionGraph.from_json(text)
    assert again == graph and again.to_json() == text
    assert again.leaf_regions == graph.leaf_regions and again.levels == graph.levels
    graph.save(tmp_path / "graph.json")
    graph.save(tmp_path / "graph.json")
    assert RegionGraph.load(tmp_path / "graph.json") == graph
    assert os.listdir(tmp_path) == ["graph.json"]


def test_json_form():
    assert json.loads(region_graph.poon_domingos(1, 2, 1).to_json()) == {
        "regions": [[0], [1], [0, 1]], "partitions": [{"region": 2, "children": [0, 1]}]}
    by_hand = '{"partitions": [{"children": [2, 1], "region": 0}], "regions": [[0, 1], [1], [0]]}'
    assert RegionGraph.from_json(by_hand) == region_graph.poon_domingos(1, 2, 1)


def one_line(error, *words):
    """The message is one short line with these words."""
    message = str(error.value)
    assert "\n" not in message and len(message) < 300
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("scope, words", [
    ((), ["empty"]),
    ((0, 2, 1), ["Region((0, 2, 1))", "strictly increasing"]),
    ((0, 1, 1), ["Region((0, 1, 1))", "strictly increasing"]),
    ((-1, 0), ["Region((-1, 0))", "negative"]),
    ((*range(100), 5), ["Region((0, 1, 2, ..., 5): 101 pixels)"]),
    ([0, 1], ["tuple of ints", "[0, 1]"]),
    ((0, 1.0), ["tuple of ints"]),
    ((False, True), ["tuple of ints"]),
    (tuple(np.arange(3)), ["tuple of ints"]),
    (None, ["tuple of ints", "None"]),
    (np.zeros((2, 2)), ["tuple of ints"]),
])
def test_region_errors(scope, words):
    with pytest.raises(InputError) as error:
        Region(scope)
    one_line(error, *words)


@pytest.mark.parametrize("parent, children, words", [
    (range(4), [(0, 1, 2), (2, 3)],
     ["Region((0, 1, 2, 3))", "not decomposable", "Region((0, 1, 2)) and Region((2, 3)) share pixel 2"]),
    (range(4), [(0, 1), (3,)], ["Region((0, 1, 2, 3))", "does not cover the region", "no child has its pixel 2"]),
    (range(2), [(0, 1), (2,)], ["Region((0, 1))", "goes beyond the region", "Region((2,)) has pixel 2"]),
    (range(2), [(0,), (0, 1)], ["not decomposable"]),
    (range(2), [(0, 1), (0, 1)], ["not decomposable"]),  # a region as its own child would be a cycle
    (range(2), [(0, 1)], ["Region((0, 1))", "at least 2 children", "got 1"]),
    (range(2), [], ["Region((0, 1))", "at least 2 children", "got 0"]),
])
def test_partition_errors(parent, children, words):
    parent, children = Region(tuple(parent)), tuple(map(Region, children))
    with pytest.raises(InputError) as error:
        Partition(parent, children)
    one_line(error, *words)


@pytest.mark.parametrize("region, children", [
    ((0, 1), (Region((0,)), Region((1,)))),
    (Region((0, 1)), [Region((0,)), Region((1,))]),
    (Region((0, 1)), (Region((0,)), (1,))),
])
def test_partition_type_errors(region, children):
    with pytest.raises(InputError) as error:
        Partition(region, children)
    one_line(error, "partition")


@pytest.mark.parametrize("regions, partitions, words", [
    ([], [], ["at least one region"]),
    ([ROOT, AB, CD, AB], [SPLIT_ROOT], ["Region((0, 1)) is given twice"]),
    ([ROOT, AB, CD], [SPLIT_ROOT, SPLIT_ROOT], ["partition of Region((0, 1, 2, 3)) is given twice"]),
    ([ROOT, AB, CD], [SPLIT_ROOT, Partition(ROOT, (CD, AB))], ["given twice"]),
    ([ROOT, AB], [SPLIT_ROOT], ["partition of Region((0, 1, 2, 3))", "Region((2, 3)) is not a region"]),
    ([ROOT, AB, CD], [SPLIT_ROOT, SPLIT_AB], ["partition of Region((0, 1))", "Region((0,)) is not a region"]),
    ([AB, CD], [SPLIT_ROOT], ["Region((0, 1, 2, 3)) is not a region"]),
    ([AB, CD], [], ["one root", "Region((2, 3))", "root Region((0, 1))"]),
    ([ROOT, AB, CD, A], [SPLIT_ROOT],
     ["Region((0,)) is a child of no region", "cannot be reached from the root Region((0, 1, 2, 3))"]),
    # An island: its top, C | D, is a child of no region.
    ([ROOT, CD, C, D], [SPLIT_CD],
     ["Region((2, 3)) is a child of no region", "cannot be reached from the root Region((0, 1, 2, 3))"]),
    ([CD, C, D], [SPLIT_CD], ["root Region((2, 3)) must hold the pixels 0..n-1"]),
    ([Region((0, 2))], [], ["root Region((0, 2)) must hold the pixels 0..n-1"]),
    ([(0, 1)], [], ["must be Regions", "(0, 1)"]),
    ([AB, A, B], [(AB, (A, B))], ["must be Partitions"]),
])
def test_graph_errors(regions, partitions, words):
    with pytest.raises(InputError) as error:
        RegionGraph(regions, partitions)
    one_line(error, *words)


def test_errors_name_long_regions_briefly():
    root = Region(tuple(range(784)))
    with pytest.raises(InputError) as error:
        RegionGraph([root, Region(tuple(range(400)))], [])
    one_line(error, "Region((0, 1, 2, ..., 399): 400 pixels)", "Region((0, 1, 2, ..., 783): 784 pixels)")


def test_partitions_of_an_unknown_region():
    with pytest.raises(InputError) as error:
        region_graph.poon_domingos(2, 2, 1).partitions_of(Region((0, 3)))
    one_line(error, "Region((0, 3))", "9 regions")


@pytest.mark.parametrize("build, words", [
    (lambda: region_graph.poon_domingos(0, 4, 1), ["height", "at least 1", "is 0"]),
    (lambda: region_graph.poon_domingos(4, -4, 1), ["width", "is -4"]),
    (lambda: region_graph.poon_domingos(4, 4, 0), ["delta", "1..4", "is 0"]),
    (lambda: region_graph.poon_domingos(4, 6, 7), ["delta", "1..6", "is 7"]),
    (lambda: region_graph.poon_domingos(4, 4, 2.0), ["delta", "an integer", "is 2.0"]),
    (lambda: region_graph.poon_domingos(4, 4, True), ["delta", "is True"]),
    (lambda: region_graph.poon_domingos(4, 4, None), ["delta", "is None"]),
    (lambda: region_graph.single_region(0), ["num_variables", "is 0"]),
    (lambda: region_graph.single_region("9"), ["num_variables", "is '9'"]),
    (lambda: region_graph.random_binary_trees(1, 1, 1, 0), ["num_variables", "at least 2", "is 1"]),
    (lambda: region_graph.random_binary_trees(8, 0, 1, 0), ["depth", "1..3", "is 0"]),
    (lambda: region_graph.random_binary_trees(15, 4, 1, 0), ["depth", "1..3", "is 4"]),
    (lambda: region_graph.random_binary_trees(8, 2, 0, 0), ["num_repetitions", "is 0"]),
    (lambda: region_graph.random_binary_trees(8, 2, 1, -1), ["seed", "is -1"]),
    (lambda: region_graph.rectangle(AB, 0), ["width", "is 0"]),
    (lambda: region_graph.rectangle(AB, np.zeros((9, 9))), ["width", "is array"]),
])
def test_argument_errors(build, words):
    with pytest.raises(InputError) as error:
        build()
    one_line(error, *words)


def test_numpy_integers_are_integers():
    graph = region_graph.poon_domingos(*np.array([4, 6, 2]))
    assert graph == region_graph.poon_domingos(4, 6, 2) == RegionGraph.from_json(graph.to_json())
    trees = region_graph.random_binary_trees(*np.array([8, 3, 2, 0]))
    assert trees == region_graph.random_binary_trees(8, 3, 2, 0)


@pytest.mark.parametrize("text, words", [
    ("", ["not valid JSON"]),
    ("{", ["not valid JSON"]),
    (None, ["not valid JSON"]),
    ("[" * 200_000, ["not valid JSON"]),
    ("[1]", ["exactly the keys regions, partitions", "got [1]"]),
    ('{"regions": [[0]]}', ["exactly the keys", "['regions']"]),
    ('{"regions": [[0]], "partitions": [], "delta": 7}', ["exactly the keys", "delta"]),
    ('{"regions": 3, "partitions": []}', ['"regions"', "lists of pixels", "got 3"]),
    ('{"regions": [0], "partitions": []}', ['"regions"', "lists of pixels"]),
    ('{"regions": [], "partitions": []}', ["at least one region"]),
    ('{"regions": [["a"]], "partitions": []}', ["tuple of ints", "'a'"]),
    ('{"regions": [[true]], "partitions": []}', ["tuple of ints", "True"]),
    ('{"regions": [[0.0]], "partitions": []}', ["tuple of ints", "0.0"]),
    ('{"regions": [[0, 100000000000000]], "partitions": []}', ["0..n-1"]),
    ('{"regions": [[0]], "partitions": {}}', ['"partitions"', "objects"]),
    ('{"regions": [[0]], "partitions": [[0, 1]]}', ['"partitions"', "objects"]),
    ('{"regions": [[0]], "partitions": [{"region": 0}]}', ["a partition", "keys region, children"]),
    ('{"regions": [[0]], "partitions": [{"region": "0", "children": []}]}', ['"region"', "indices", "'0'"]),
    ('{"regions": [[0]], "partitions": [{"region": 0, "children": 0}]}', ['"children"', "indices"]),
    ('{"regions": [[0]], "partitions": [{"region": 0, "children": [true]}]}', ['"children"', "True"]),
    ('{"regions": [[0]], "partitions": [{"region": 0, "children": [-1]}]}', ["index -1", "0..0"]),
    ('{"regions": [[0]], "partitions": [{"region": 1, "children": [0]}]}', ["index 1", "0..0"]),
    ('{"regions": [[0, 1], [0]], "partitions": [{"region": 0, "children": [1, 0]}]}', ["not decomposable"]),
    ('{"regions": [[0, 1], [0], [1]], "partitions": []}', ["one root"]),
])
def test_json_errors(text, words, tmp_path):
    with pytest.raises(InputError) as error:
        RegionGraph.from_json(text)
    one_line(error, *words)
    if text is not None:
        (tmp_path / "graph.json").write_text(text)
        with pytest.raises(InputError) as error:
            RegionGraph.load(tmp_path / "graph.json")
        one_line(error, "graph.json", *words)


def test_file_errors(tmp_path):
    graph = region_graph.single_region(2)
    with pytest.raises(InputError) as error:
        RegionGraph.load(tmp_path / "none.json")
    one_line(error, "none.json", "No such file")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(InputError) as error:
        RegionGraph.load(tmp_path / "binary.json")
    one_line(error, "binary.json")
    for path in (tmp_path / "binary.json" / "graph.json", tmp_path):
        with pytest.raises(InputError) as error:
            graph.save(path)
        one_line(error, "cannot write", str(path))
    assert os.listdir(tmp_path) == ["binary.json"]
    assert not [name for name in os.listdir(tmp_path.parent) if name.endswith(".tmp")]


def test_save_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "graph.json"
    region_graph.single_region(2).save(path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError):
        region_graph.single_region(3).save(path)
    assert RegionGraph.load(path) == region_graph.single_region(2)
    assert os.listdir(tmp_path) == ["graph.json"]


def test_large_graphs_are_counted_before_they_are_built(monkeypatch):
    for make, message in (
            (lambda **allow: region_graph.poon_domingos(28, 28, 1, **allow),
             "poon_domingos.28, 28, delta=1. has 164,836 regions, 2,967,048 partitions and, .* 328,103 sums; "),
            (lambda **allow: region_graph.random_binary_trees(2**17, 16, 1, seed=0, **allow),
             "has 131,071 regions, 65,535 partitions and, .* 131,069 sums; .* more than 50,000 .*allow_large_graph")):
        with pytest.raises(InputError, match=message):
            make()
    monkeypatch.setattr(region_graph, "LARGE", 0)
    for make in (lambda **allow: region_graph.poon_domingos(5, 9, 3, **allow),
                 lambda **allow: region_graph.random_binary_trees(8, 3, 1, seed=0, **allow)):
        graph = make(allow_large_graph=True)
        sums, _, _ = count_spn(graph, 2, 2)
        with pytest.raises(InputError, match=f" {len(graph.regions)} regions, {len(graph.partitions)} partitions and, "
                                             f"with two in each internal region but the root, {sums} sums"):
            make()
