"""Table 1: which runs it has, what is run, and the table as CSV and text."""

import math
import threading

import pytest
from small_runs import make_config, make_dataset, make_record, without_config

from spvae_tf.errors import InputError
from spvae_tf.files import lock, read_table
from spvae_tf.reproduction import compare, figure2, table1
from spvae_tf.spvae import MODELS
from spvae_tf.training import configuration, records, run
from spvae_tf.training.trainer import NonFiniteError, Trainer

pytestmark = pytest.mark.usefixtures("eagerly")


def test_own_images_take_the_sizes_and_the_rounding_of_a_cell():
    for preset, sizes in (("tuned", (32, 50)), ("checkpoint", (100, 50))):
        config, = table1.make_configs(preset, "released", ["SPVAE"], ["a/mine.npz"], ["discrete"], [0],
                                        cell_of="svhn_cropped")
        assert (config.hidden_units, config.latent_dim, config.round_pixels) == (*sizes, False)
        assert config.dataset == "a/mine.npz" and "round_pixels=false" in config.name
    config = configuration.make_config("VAE", "mine.npz", "continuous", cell_of="cifar10")
    assert (config.hidden_units, config.latent_dim, config.round_pixels) == (300, 50, None)


@pytest.mark.parametrize("empty", ["models", "datasets", "likelihoods", "seeds"])
def test_nothing_to_run_is_refused(empty):
    lists = dict(models=["VAE"], datasets=["mnist"], likelihoods=["discrete"], seeds=[0])
    lists[empty] = []
    if empty == "datasets":
        lists[empty] = None  # the preset's
        assert table1.make_configs("mini", "paper", **lists)
    else:
        with pytest.raises(InputError, match="nothing to run"):
            table1.make_configs("mini", "paper", **lists)


def test_what_is_named_twice_is_run_once():
    configs = table1.make_configs("tuned", "paper", ["VAE", "vae"], ["mnist", "mnist"], ["discrete", "discrete"],
                                    ["0", "1", "00"])
    assert [(c.model, c.seed) for c in configs] == [("VAE", 0), ("VAE", 1)]


def test_the_paper_number_of_another_model_says_so():
    text = table1.as_text([make_record(model="Conv-VAE", likelihood="discrete", paper_test_ll=-2099)])
    assert "belongs to another model: H = 64, n_z = 100" in text


def test_reproduce_table1_goes_on_after_a_failure(tmp_path, monkeypatch, capsys):
    configs = [configuration.resolve(make_config(model, max_batches=2)) for model in ("SPVAE", "VAE")]
    monkeypatch.setattr(run, "load_data", lambda config: make_dataset())
    train = Trainer.run

    def failing(trainer):
        if trainer.config.model == "SPVAE":
            raise NonFiniteError("the bound is not finite")
        return train(trainer)
    monkeypatch.setattr(Trainer, "run", failing)
    assert table1.reproduce(configs, tmp_path) == 1
    assert "the bound is not finite" in capsys.readouterr().err
    assert [row["model"] for row in read_table(tmp_path / "paper" / "table1.csv")] == ["VAE"]
    monkeypatch.setattr(Trainer, "run", train)
    assert table1.reproduce(configs, tmp_path) == 0
    assert "already there" in capsys.readouterr().out
    assert [row["model"] for row in read_table(tmp_path / "paper" / "table1.csv")] == ["SPVAE", "VAE"]
    assert table1.reproduce(configs, tmp_path) == 0
    assert len(read_table(tmp_path / "paper" / "table1.csv")) == 2


def some_records():
    return [make_record(model=model, dataset=dataset, seed=seed, test_ll=100.0 * seed, paper_test_ll=None)
            for model in MODELS for dataset in ("mnist", "cifar10") for seed in (0, 2, 10)]


def test_table_is_a_function_of_the_records(tmp_path):
    """Whatever the order in which runs finish, and however often the table is made."""
    made = some_records()
    tables_written = []
    for folder, ordered in ((tmp_path / "a", made), (tmp_path / "b", made[::-1])):
        for record in ordered:
            records.write_record(folder, "-".join(str(record[k]) for k in ("model", "dataset", "seed")), record)
            table1.write(folder)
        tables_written.append((folder / "table1.csv").read_bytes())
        table1.write(folder)
        tables_written.append((folder / "table1.csv").read_bytes())
    assert len(set(tables_written)) == 1
    rows = read_table(tmp_path / "a" / "table1.csv")
    assert [(row["dataset"], row["model"], row["seed"]) for row in rows] == [
        (dataset, model, seed) for dataset in ("cifar10", "mnist")
        for model in ("SPVAE", "VAE", "Conv-SPVAE", "Conv-VAE") for seed in (0, 2, 10)]
    (tmp_path / "a" / "records" / "VAE-mnist-2.json").unlink()
    table1.write(tmp_path / "a")
    assert len(read_table(tmp_path / "a" / "table1.csv")) == len(made) - 1


def test_table_columns(tmp_path):
    records.write_record(tmp_path, "a", make_record() | {"something": "else"})
    table1.write(tmp_path)
    assert (tmp_path / "table1.csv").read_text().splitlines()[0] == (
        "model,dataset,likelihood,protocol,preset,seed,hidden_units,latent_dim,params,num_train,batches,best_batch,"
        "train_seconds,val_ll_k5,test_ll_k5,test_ll,test_ll_stderr,num_samples,num_test_images,paper_test_ll,device,"
        "versions,commit")


def test_table1_as_text():
    records = [make_record(test_ll=2820.4), make_record(test_ll=2830.4, seed=1),
               make_record(model="VAE", test_ll=2600.2, paper_test_ll=2598),
               make_record(model="VAE", dataset="digits", likelihood="discrete", test_ll=-7.6, paper_test_ll=None)]
    text = table1.as_text(records)
    assert "2825 ± 7 (2819); density" in text and "2600 (2598); density" in text
    lines = text.splitlines()
    assert "k = 5000 on 10000 images" in lines[0]
    assert lines[1].split("  ")[-1].strip() == "digits, discrete"
    assert lines[2].split()[0] == "SPVAE" and lines[2].split()[-1] == "—"
    assert lines[3].split()[0] == "VAE" and lines[3].split()[-1] == "-8"  # of images of unknown size
    assert len(lines) == 4


def test_table1_has_bits_per_dimension_of_counts_beside_the_uniform_distributions():
    nats = 784 * math.log(2)
    records = [make_record(likelihood="tied_mixture", test_ll=-1.25 * nats, paper_test_ll=None),
               make_record(dataset="mine", likelihood="discrete", test_ll=-2 * nats, paper_test_ll=None,
                           image_shape=[14, 28])]
    *_, head, ours, uniform = table1.as_text(records).splitlines()
    assert head.split("  ")[-1] == "mnist, tied_mixture" and "mine, discrete" in head
    assert ours.endswith("-679; 1.250") and "-1087; 4.000" in ours
    assert uniform.startswith("uniform over the counts") and "-2174; 8" in uniform and uniform.endswith("-4347; 8")


@pytest.mark.parametrize("write, name", [(table1.write, "table1.csv"),
                                         (figure2.write, "low_data_sweep.csv")])
def test_tables_wait_for_each_other(tmp_path, write, name):
    """Another process between its reading and its writing: this one reads after it, and misses no record."""
    part = dict(train_fraction=0.5)
    config = configuration.resolve(configuration.make_config()).to_dict() | dict(hidden_units=30, latent_dim=25)
    for number, change in enumerate((dict(), part)):
        records.write_record(tmp_path, f"r{number}", make_record(
            preset="single", num_train=50_000 - number, config=config | change))
    with lock(tmp_path):
        other = threading.Thread(target=write, args=[tmp_path])
        other.start()
        other.join(0.5)
        assert other.is_alive() and not (tmp_path / name).exists()
        records.write_record(tmp_path, "late", make_record(preset="single", seed=1, config=config | dict(seed=1)))
    other.join()
    assert 1 in {row["seed"] for row in read_table(tmp_path / name)}


def test_tables_leave_damaged_records_out(tmp_path):
    records.write_record(tmp_path, "sound", make_record())
    records.write_record(tmp_path, "damaged", make_record(num_train=None))
    for write in (table1.write, figure2.write):
        with pytest.warns(UserWarning, match="damaged.json is damaged .num_train is None."):
            write(tmp_path)
    assert read_table(tmp_path / "table1.csv") == [without_config(make_record())]


def test_own_images_are_not_compared_with_the_data_set_of_their_name(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"images")
    run.complete(make_config(dataset=str(tmp_path / "mnist.npz"), max_batches=2), tmp_path, make_dataset())
    table1.write(tmp_path / "paper")
    assert compare.without_a_cell(compare.read(tmp_path / "paper")) == ["npz_mnist"]
