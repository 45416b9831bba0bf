"""A row of table1.csv, for the tests that compare and report; and the files that its run leaves."""

from spvae_tf import files, published
from spvae_tf.training import records


def make_row(model="SPVAE", dataset="mnist", likelihood="continuous", **changes):
    """A whole run at Table 2's sizes that hits the published number, on the authors' images."""
    cell = published.cell(model, dataset, likelihood)
    row = dict(
        model=model, dataset=dataset, likelihood=likelihood, protocol="released", preset="tuned", seed=0,
        hidden_units=cell.hidden_units if cell else 1, latent_dim=cell.latent_dim if cell else 1, params=1,
        num_train=50_000, batches=5408, best_batch=4000, train_seconds=3600.0, val_ll_k5=1.5, test_ll_k5=2.5,
        test_ll=float(cell.test_ll) if cell else 0.0, test_ll_stderr=1.0, num_samples=5000, num_test_images=10_000,
        paper_test_ll=cell.test_ll if cell else None, device="a machine", versions="some", commit="0",
        preparation="authors")
    return row | changes


def write_runs(folder, *rows):
    """table1.csv, and of each row its record; a record of the earlier preparation says nothing of it."""
    for row in rows:
        config = {key: row[key] for key in ("model", "dataset", "likelihood", "protocol", "preset", "seed",
                                            "hidden_units", "latent_dim", "preparation")}
        if row["preparation"] == "earlier":
            del config["preparation"]
        record = {key: row[key] for key in records.FIELDS} | {"config": config}
        records.write_record(folder, name_of(row), record)
    files.write_table(folder / "table1.csv", rows, records.FIELDS)
    return folder


def name_of(row):
    return "-".join(str(row[key]) for key in ("model", "dataset", "likelihood", "hidden_units", "seed"))
