"""Table 2: the sizes of all models."""

from spvae_tf import published
from spvae_tf.reproduction import table2


def test_all_models_have_the_papers_thousands():
    rows = table2.count_parameters()
    assert len(rows) == len(published.CELLS) == 24
    assert all(row["params"] // 1000 == row["paper_kparams"] for row in rows)
    lines = table2.as_text(rows).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["SPVAE", "VAE", "Conv-SPVAE", "Conv-VAE"]
    assert "413,352 (413k)" in lines[2]
