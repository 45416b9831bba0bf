"""What a sum-product network says by its definition: every induced tree of equation (5), one by one, in float64."""

import itertools

import numpy as np

from spvae_tf.model.region_graph import Partition, Region, RegionGraph


def ternary_graph():
    """A ternary next to a binary partition, children of unequal height, and unequal regions on one level."""
    a, b, c, d, e = [Region((i,)) for i in range(5)]
    ab, cde, root = Region((0, 1)), Region((2, 3, 4)), Region((0, 1, 2, 3, 4))
    partitions = [Partition(ab, (a, b)), Partition(cde, (c, d, e)), Partition(root, (ab, cde)),
                  Partition(root, (a, b, cde)), Partition(root, (ab, c, d, e))]
    return RegionGraph([a, b, c, d, e, ab, cde, root], partitions)


def induced_trees(graph, num_sums, num_components):
    """All induced trees of the SPN of section 3.3, by the definition: one child per sum, all children of a product.

    A node is (region, number). A sum's products are numbered in the order of the region's partitions and, within
    one, of the cross product of the children's nodes; a root without partitions mixes its leaves.

    Args:
      graph, num_sums, num_components: of the SPN.

    Returns:
      list of (edges, nodes): frozensets of (sum node, product number) and of nodes.
    """
    def count(region):
        if graph.partitions_of(region):
            return 1 if region == graph.root else num_sums
        return num_components

    def below(node):
        region, _ = node
        if not graph.partitions_of(region):
            return [(frozenset(), frozenset([node]))]
        found = []
        for number, product in enumerate(products(region)):
            for trees in itertools.product(*map(below, product)):
                found.append((frozenset([(node, number)]).union(*(edges for edges, _ in trees)),
                              frozenset([node]).union(*(nodes for _, nodes in trees))))
        return found

    def products(region):
        for partition in graph.partitions_of(region):
            yield from itertools.product(*([(child, n) for n in range(count(child))] for child in partition.children))

    if not graph.partitions_of(graph.root) and num_components > 1:
        leaves = [(graph.root, n) for n in range(num_components)]
        return [(frozenset([(("root sum", 0), n)]), frozenset([("root sum", 0), leaf]))
                for n, leaf in enumerate(leaves)]
    return below((graph.root, 0))


class BruteForce:
    """Equation (5) of a layer, term by term: log-terms, their sum, and what follows from it.

    Args:
      spn: SumProductNetwork, of which it takes the sum weights and where each one lies in their vector.
    """

    def __init__(self, spn):
        graph, components = spn.graph, spn.num_components
        rows = {(region, n): i * components + n
                for i, region in enumerate(graph.leaf_regions) for n in range(components)}
        self.groups, places = [], {}  # the weights of one sum; (sum node, product number) -> place of the weight
        for level in spn.levels:
            for r, s in np.ndindex(len(level.regions), level.num_sums):
                node = (level.regions[r] if graph.levels else "root sum", s)
                rows[node] = level.first_node + r * level.num_sums + s
                weights = [w for w in level.weights[r, :, s] if w >= 0]
                self.groups.append(weights)
                places |= {(node, number): w for number, w in enumerate(weights)}
        trees = induced_trees(graph, spn.num_sums, components)
        self.edges = np.zeros([len(trees), spn.num_weights])
        nodes_of = np.zeros([len(trees), spn.num_nodes])
        for t, (edges, nodes) in enumerate(trees):
            self.edges[t, [places[edge] for edge in edges]] = 1
            nodes_of[t, [rows[node] for node in nodes]] = 1
        self.nodes = without_unit(spn, nodes_of.T)
        self.num_leaves = len(graph.leaf_regions) * components
        self.weights = np.asarray(spn.sum_weights, np.float64) if spn.num_weights else np.zeros(0)

    def log_terms(self, leaves, weights=None):
        """log of prod w_nc prod p_l(x_l) of each tree, [trees, batch]; leaves [batch, regions, components]."""
        weights = self.weights if weights is None else weights
        log_w = np.array(weights, np.float64)
        for group in self.groups:
            log_w[group] -= log_sum_exp(log_w[group])
        leaves = np.asarray(leaves, np.float64).reshape(len(leaves), -1)
        impossible = np.isneginf(leaves) @ self.nodes[:, :self.num_leaves].T > 0
        finite = np.where(np.isneginf(leaves), 0, leaves)
        log_terms = (self.edges @ log_w)[:, None] + self.nodes[:, :self.num_leaves] @ finite.T
        return np.where(impossible.T, -np.inf, log_terms)

    def log_prob(self, leaves, weights=None):
        return log_sum_exp(self.log_terms(leaves, weights))

    def weight_gradient(self, leaves):
        """Differences of the batch's log-likelihood, added up, in every sum weight."""
        return [(self.log_prob(leaves, self.weights + h) - self.log_prob(leaves, self.weights - h)).sum() / 2e-6
                for h in 1e-6 * np.eye(len(self.weights))]

    def posterior(self, leaves):
        """P(tree | x), [trees, batch]."""
        return np.exp(self.log_terms(leaves) - self.log_prob(leaves))

    def marginals(self, leaves):
        """P(node in induced tree | x), [batch, nodes but the unit node]."""
        return self.posterior(leaves).T @ self.nodes


def without_unit(spn, nodes):
    """[nodes, batch] -> [batch, nodes], less the unit node, which stands for the children that a product lacks."""
    unit = len(spn.graph.leaf_regions) * spn.num_components
    return np.ascontiguousarray(np.delete(np.asarray(nodes).T, unit, axis=1))


def log_sum_exp(terms):
    """Over the first axis; log 0 where all are log 0."""
    top = terms.max(axis=0)
    top = np.where(np.isneginf(top), 0, top)
    with np.errstate(divide="ignore"):
        return top + np.log(np.exp(terms - top).sum(axis=0))
