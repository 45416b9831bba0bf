"""A row of table1.csv, for the tests that compare and report."""

from spvae_tf import published


def make_row(model="SPVAE", dataset="mnist", likelihood="continuous", **changes):
    """A whole run at Table 2's sizes that hits the published number."""
    cell = published.cell(model, dataset, likelihood)
    row = dict(
        model=model, dataset=dataset, likelihood=likelihood, protocol="released", preset="tuned", seed=0,
        hidden_units=cell.hidden_units if cell else 1, latent_dim=cell.latent_dim if cell else 1, params=1,
        num_train=50_000, batches=5408, best_batch=4000, train_seconds=3600.0, val_ll_k5=1.5, test_ll_k5=2.5,
        test_ll=float(cell.test_ll) if cell else 0.0, test_ll_stderr=1.0, num_samples=5000, num_test_images=10_000,
        paper_test_ll=cell.test_ll if cell else None, device="a machine", versions="some", commit="0")
    return row | changes
