"""What the authors' own logs say of Table 1: how its models were chosen, and how far equal runs lie apart."""

from spvae_tf import published as paper

BEST = 3  # sizes shown


def choice_lines():
    """The sizes behind Table 1 among all that the authors logged, ordered by the validation ELBO of their best run.

    Returns:
      list of lists of str, the first the head; a line for each cell of Table 1, nats per image, k = 5.
    """
    lines = [["cell", "sizes logged", "Table 2's H, n_z: validation (place)",
              *(f"{place}." for place in range(1, BEST + 1)), "sizes run twice: differences"]]
    runs = paper.authors_runs()
    for key, cell in paper.CELLS.items():
        logged = runs[key]
        order = sorted(logged, key=lambda size: logged[size][0], reverse=True)
        lines.append([", ".join(key), str(len(order)),
                      _place((cell.hidden_units, cell.latent_dim), order, logged),
                      *(_value(size, logged) for size in order[:BEST]), _differences(logged)])
    return lines


def _value(size, logged):
    return "{}, {}: {:.0f}".format(*size, logged[size][0][0])


def _place(size, order, logged):
    if size not in logged:
        return "{}, {}: not logged".format(*size)
    return f"{_value(size, logged)} ({order.index(size) + 1}.)"


def _differences(logged):
    """How far the validation ELBOs of two runs of one size lie apart."""
    found = sorted(values[0][0] - values[-1][0] for values in logged.values() if len(values) > 1)
    return ", ".join(f"{difference:.0f}" for difference in found) or "—"
