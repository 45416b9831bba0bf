"""Checkpoints, records, tables, configurations, and the paper's numbers."""

import itertools
import json
import math
import statistics
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import tensorflow as tf

from spvae_tf import published as paper
from spvae_tf.errors import InputError
from spvae_tf.files import lock, read_table, write_atomically, write_table, write_text
from spvae_tf.model.region_graph import random_binary_trees
from spvae_tf.reproduction import compare, figure2, table1
from spvae_tf.spvae import MODELS
from spvae_tf.training import checkpoint, configuration
from spvae_tf.training import provenance as environment
from spvae_tf.training import records as results
from spvae_tf.training import run as experiment
from spvae_tf.training import trainer as training
from spvae_tf.training.data import Dataset
from spvae_tf.training.trainer import Trainer


@pytest.fixture(scope="module", autouse=True)
def eagerly():
    """Models this small run quicker than they compile."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def make_dataset(num_train=24):
    rng = np.random.default_rng(0)
    train, validation, test = (rng.random((n, 144), np.float32) for n in (num_train, 7, 9))
    return Dataset("tiny", (12, 12), train, validation, test, None, None, None)


def make_config(model="SPVAE", **overrides):
    config = configuration.make_config(model, "tiny.npz")
    config.update(dict(hidden_units=4, latent_dim=2, batch_size=8, train_samples=2, validate_every=2, max_batches=6,
                       test_samples=12, num_test_images=5))
    config.update(overrides)
    return config


def make_record(**overrides):
    record = dict(
        model="SPVAE", dataset="mnist", likelihood="continuous", protocol="paper", preset="tuned", seed=0,
        hidden_units=30, latent_dim=25, params=413352, num_train=50_000, batches=2560, best_batch=1152,
        train_seconds=61.2, val_ll_k5=2801.123, test_ll_k5=2803.25, test_ll=2820.5, test_ll_stderr=2.125,
        num_samples=5000, num_test_images=10_000, paper_test_ll=2819, device='a "fast" one, 2 cores',
        versions="python 3.12.1; numpy 2.1.0", commit="70318f1abc+", config={"train_fraction": 1.0})
    return record | overrides


def without_config(record):
    """What of a record stands in a table."""
    return {key: value for key, value in record.items() if key != "config"}


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- checkpoints ------------------------------------------------------------------------------------------------------

ARRAYS = {"weights": [np.arange(6, dtype=np.float32).reshape(2, 3), np.float32(7)],
          "best": [np.ones([2, 3]), np.zeros([])],
          "optimizer": [np.int64(n) for n in range(12)]}  # two digits: the order is not that of "1", "10", "2"
STATE = {"step": 3, "best_ll": -math.inf, "history": [{"batch": 3, "val_ll": -1.5}], "text": "π"}


def assert_equal_checkpoint(found, arrays=ARRAYS, state=STATE):
    assert found[1] == state
    assert found[0].keys() == arrays.keys()
    for group, expected in arrays.items():
        for a, b in zip(found[0][group], expected, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


def test_checkpoint_round_trip(tmp_path):
    path = tmp_path / "new" / "folder" / checkpoint.CHECKPOINT
    checkpoint.save(path, ARRAYS, STATE)
    assert_equal_checkpoint(checkpoint.restore(path))
    checkpoint.save(path, ARRAYS, STATE | {"step": 4})
    assert_equal_checkpoint(checkpoint.restore(path), state=STATE | {"step": 4})
    assert files(tmp_path) == ["new/folder/checkpoint.npz"]


def test_truncated_checkpoint(tmp_path):
    checkpoint.save(tmp_path / "whole.npz", ARRAYS, STATE)
    whole, path = (tmp_path / "whole.npz").read_bytes(), tmp_path / "part.npz"
    for length in [0, 1, 3, *range(4, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=f"^checkpoint {path} is damaged") as error:
            checkpoint.restore(path)
        assert "\n" not in str(error.value)


def test_checkpoint_with_a_wrong_byte(tmp_path):
    """Damage is noticed, or it is where it does no harm, as in a time stamp."""
    arrays, state = {"weights": [np.arange(3.0)], "best": [np.ones(2)], "optimizer": [np.int64(7)]}, {"step": 3}
    checkpoint.save(tmp_path / "whole.npz", arrays, state)
    whole, path = bytearray((tmp_path / "whole.npz").read_bytes()), tmp_path / "wrong.npz"
    for place in range(len(whole)):
        wrong = whole.copy()
        wrong[place] ^= 0xFF
        path.write_bytes(wrong)
        try:
            found = checkpoint.restore(path)
        except InputError as error:
            assert str(path) in str(error)
        else:
            assert_equal_checkpoint(found, arrays, state)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", json.dumps(STATE).encode(), b"PK\x03\x04"])
def test_file_that_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "c.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"^checkpoint {path} is damaged"):
        checkpoint.restore(path)


@pytest.mark.parametrize("arrays", [{"x": np.zeros(3)}, {"state": np.array("{}")}, {"state": np.zeros(3)},
                                    {"state": np.array("{}"), "weights/000": np.zeros(3)}])
def test_array_file_that_is_no_checkpoint(tmp_path, arrays):
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(InputError, match=f"^checkpoint {tmp_path / 'c.npz'} is damaged"):
        checkpoint.restore(tmp_path / "c.npz")


def test_missing_checkpoint(tmp_path):
    with pytest.raises(InputError, match=f"^there is no checkpoint {tmp_path / 'c.npz'}$"):
        checkpoint.restore(tmp_path / "c.npz")


@pytest.mark.parametrize("shapes", [[(2, 3)], [(2, 3), (5,)], [(3, 2), (4,)], [(2, 3), (4,), (1,)], [(6,), (4,)]])
def test_checkpoint_of_another_model(shapes):
    variables = [tf.Variable(np.ones((2, 3))), tf.Variable(np.ones(4))]
    with pytest.raises(InputError, match="^checkpoint c.npz belongs to another model: ") as error:
        checkpoint.assign(variables, [np.zeros(shape) for shape in shapes], "c.npz")
    assert f"{len(shapes)} arrays of {sum(map(math.prod, shapes))} values, the model has 2 of 10" in str(error.value)
    assert all(np.all(v == 1) for v in variables)  # nothing assigned halfway


@pytest.mark.parametrize("error, raised", [(OSError(28, "No space left on device"), InputError),
                                           (RuntimeError("x"), RuntimeError), (KeyboardInterrupt(), KeyboardInterrupt)])
def test_failing_write_leaves_the_old_file(tmp_path, error, raised):
    path = tmp_path / "file"
    write_text(path, "old")

    def write(temporary):
        temporary.write_text("ne")
        assert path.read_text() == "old"  # the new file is written beside it
        raise error
    with pytest.raises(raised) as caught:
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert files(tmp_path) == ["file"]
    if raised is InputError:
        assert str(caught.value) == f"cannot write {path}: No space left on device"


def test_write_text_replaces_the_file(tmp_path):
    write_text(tmp_path / "a" / "file", "old and longer")
    write_text(tmp_path / "a" / "file", "π")
    assert (tmp_path / "a" / "file").read_bytes() == "π".encode()
    assert files(tmp_path) == ["a/file"]


@pytest.mark.parametrize("below", ["file", "file/a", "file/a/b"])
def test_unwritable_folder(tmp_path, below):
    (tmp_path / "file").write_text("a regular file where a folder is wanted")
    with pytest.raises(InputError, match="^cannot write ") as error:
        write_text(tmp_path / below / "x.csv", "text")
    assert "\n" not in str(error.value) and str(tmp_path / below / "x.csv") in str(error.value)
    with pytest.raises(InputError, match="^cannot write "):
        checkpoint.save(tmp_path / below / "c.npz", ARRAYS, STATE)
    with pytest.raises(InputError, match="^cannot write "):
        results.write_record(tmp_path / below, "name", make_record())
    with pytest.raises(InputError, match="^cannot write "):
        experiment.train(make_config(), tmp_path / below, make_dataset())


# --- records and tables -----------------------------------------------------------------------------------------------

def test_record_round_trip(tmp_path):
    record = make_record(paper_test_ll=None)
    assert results.read_record(tmp_path, "a") is None
    results.write_record(tmp_path, "a", record)
    assert results.read_record(tmp_path, "a") == record
    assert files(tmp_path) == ["records/a.json"]
    assert set(record) == {*results.FIELDS, "config"}


@pytest.mark.parametrize("content", [b"", b"{", b'{"model": "SPVAE"}', b"[1, 2]", b"7", b"null", b"\xff\xfe",
                                     json.dumps(make_record()).encode()[:-3]])
def test_damaged_record_is_named_and_left_out(tmp_path, content):
    results.write_record(tmp_path, "sound", make_record())
    path = tmp_path / "records" / "damaged.json"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=str(path)):
        assert results.read_record(tmp_path, "damaged") is None
    with pytest.warns(UserWarning, match=str(path)):
        assert [r["params"] for r in results.read_records(tmp_path)] == [413352]
    with pytest.warns(UserWarning, match=str(path)):
        table1.write(tmp_path)
    assert read_table(tmp_path / "table1.csv") == [without_config(make_record())]


@pytest.mark.parametrize("damage, what", [
    (dict(num_train=None), "num_train is None"), (dict(val_ll_k5="good"), "val_ll_k5 is 'good'"),
    (dict(seed="0"), "seed is '0'"), (dict(device=7), "device is 7"), (dict(model="GAN"), "model is 'GAN'"),
    (dict(protocol="mine"), "protocol is 'mine'"), (dict(num_samples=None), "only a part of the test"),
    (dict(test_ll=math.nan), "test_ll is nan"), (dict(test_ll_k5=-math.inf), "test_ll_k5 is -inf"),
    (dict(config={"protocol": "mine"}), "protocol is 'mine'"), (dict(config={"seed": 1}), "seed is 0, but 1"),
    (dict(config={"batch_size": "many"}), "'<' not supported"), (dict(config=7), "'int'")])
def test_record_that_means_nothing_is_named_and_left_out(tmp_path, damage, what):
    results.write_record(tmp_path, "sound", make_record())
    results.write_record(tmp_path, "damaged", make_record(**damage))
    with pytest.warns(UserWarning, match=f"damaged.json is damaged .*{what}.*its run will be repeated"):
        assert results.read_record(tmp_path, "damaged") is None
    with pytest.warns(UserWarning, match="damaged.json"):
        table1.write(tmp_path)
    with pytest.warns(UserWarning, match="damaged.json"):
        figure2.write(tmp_path)
    assert read_table(tmp_path / "table1.csv") == [without_config(make_record())]


def some_records():
    return [make_record(model=model, dataset=dataset, seed=seed, test_ll=100.0 * seed, paper_test_ll=None)
            for model in MODELS for dataset in ("mnist", "cifar10") for seed in (0, 2, 10)]


def test_table_is_a_function_of_the_records(tmp_path):
    """Whatever the order in which runs finish, and however often the table is made."""
    records = some_records()
    tables_written = []
    for folder, ordered in ((tmp_path / "a", records), (tmp_path / "b", records[::-1])):
        for record in ordered:
            results.write_record(folder, "-".join(str(record[k]) for k in ("model", "dataset", "seed")), record)
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
    assert len(read_table(tmp_path / "a" / "table1.csv")) == len(records) - 1


def test_table_columns(tmp_path):
    results.write_record(tmp_path, "a", make_record() | {"something": "else"})
    table1.write(tmp_path)
    assert (tmp_path / "table1.csv").read_text().splitlines()[0] == (
        "model,dataset,likelihood,protocol,preset,seed,hidden_units,latent_dim,params,num_train,batches,best_batch,"
        "train_seconds,val_ll_k5,test_ll_k5,test_ll,test_ll_stderr,num_samples,num_test_images,paper_test_ll,device,"
        "versions,commit")


def test_table_round_trip(tmp_path):
    records = [make_record(), make_record(paper_test_ll=None, test_ll=-1.5e-7, seed=2**31),
               make_record(device="a\nb, π")]
    write_table(tmp_path / "t.csv", records, results.FIELDS)
    assert read_table(tmp_path / "t.csv") == [without_config(record) for record in records]
    write_table(tmp_path / "t.csv", [], results.FIELDS)
    assert read_table(tmp_path / "t.csv") == []
    with pytest.raises(InputError, match="^there is no table "):
        read_table(tmp_path / "missing.csv")
    write_table(tmp_path / "t.csv", [make_record(test_ll_stderr=math.nan)], results.FIELDS)
    assert math.isnan(read_table(tmp_path / "t.csv")[0]["test_ll_stderr"])


@pytest.mark.parametrize("commit", ["1234567890", "12345e6789", "0123456789"])
def test_commit_that_looks_like_a_number_stays_text(tmp_path, commit):
    write_table(tmp_path / "t.csv", [make_record(commit=commit)], results.FIELDS)
    assert read_table(tmp_path / "t.csv")[0]["commit"] == commit


def test_table1_as_text():
    records = [make_record(test_ll=2820.4), make_record(test_ll=2830.4, seed=1),
               make_record(model="VAE", test_ll=2600.2, paper_test_ll=2598),
               make_record(model="VAE", dataset="digits", likelihood="discrete", test_ll=-7.6, paper_test_ll=None)]
    text = table1.as_text(records)
    assert "2825 ± 7 (2819)" in text and "2600 (2598)" in text
    lines = text.splitlines()
    assert "k = 5000 on 10000 images" in lines[0]
    assert lines[1].split("  ")[-1].strip() == "digits, discrete"
    assert lines[2].split()[0] == "SPVAE" and lines[2].split()[-1] == "—"
    assert lines[3].split()[0] == "VAE" and lines[3].split()[-1] == "-8"
    assert len(lines) == 4


@pytest.mark.parametrize("write, name", [(table1.write, "table1.csv"),
                                         (figure2.write, "low_data_sweep.csv")])
def test_tables_wait_for_each_other(tmp_path, write, name):
    """Another process between its reading and its writing: this one reads after it, and misses no record."""
    part = dict(train_fraction=0.5)
    config = configuration.resolve(configuration.make_config()).to_dict() | dict(hidden_units=30, latent_dim=25)
    for number, change in enumerate((dict(), part)):
        results.write_record(tmp_path, f"r{number}", make_record(
            preset="single", num_train=50_000 - number, config=config | change))
    with lock(tmp_path):
        other = threading.Thread(target=write, args=[tmp_path])
        other.start()
        other.join(0.5)
        assert other.is_alive() and not (tmp_path / name).exists()
        results.write_record(tmp_path, "late", make_record(preset="single", seed=1, config=config | dict(seed=1)))
    other.join()
    assert 1 in {row["seed"] for row in read_table(tmp_path / name)}


def test_picture_names_tell_runs_apart():
    def name(**overrides):
        config = configuration.make_config("SPVAE", "mnist", "discrete")
        config.update(overrides)
        return configuration.picture_name(configuration.resolve(config))
    assert name() == "spvae_mnist_discrete_paper_seed0"
    assert name(latent_dim=2) == "spvae_mnist_discrete_paper_z2_seed0"
    assert name(hidden_units=8, train_fraction=0.1, seed=3) == "spvae_mnist_discrete_paper_h8_train_fraction=0.1_seed3"
    assert name(learning_rate=0.5, patience=60) == "spvae_mnist_discrete_paper_learning_rate=0.5_patience=60_seed0"


def test_run_names_tell_runs_apart():
    choices = dict(
        model=MODELS, dataset=("mnist", "mnist_sample", "svhn_cropped", "data/faces.npz"),
        likelihood=("continuous", "discrete"), preset=("mini", "tuned"), hidden_units=(3, 30), latent_dim=(0, 5, 50),
        train_fraction=(1.0, 0.1, 0.01, 0.013), seed=(0, 1, 10))
    config, names = configuration.make_config(), []
    for values in itertools.product(*choices.values()):
        config.update(dict(zip(choices, values)))
        names.append(configuration.run_name(config))
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and not set(name) & set("/\\ :*?\"<>|") for name in names)


# --- configurations ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("model, protocol, learning_rate, patience, stream", [
    ("SPVAE", "released", 0.01, 11, "restarted"), ("Conv-SPVAE", "released", 0.01, 11, "restarted"),
    ("VAE", "released", 0.001, 11, "restarted"), ("Conv-VAE", "released", 0.001, 11, "restarted"),
    ("SPVAE", "paper", 0.001, 5, "epochs"), ("Conv-SPVAE", "paper", 0.001, 5, "epochs"),
    ("VAE", "paper", 0.001, 5, "epochs"), ("Conv-VAE", "paper", 0.001, 5, "epochs")])
def test_protocols(model, protocol, learning_rate, patience, stream):
    config = configuration.make_config(model)
    config.protocol = protocol
    resolved = configuration.resolve(config)
    assert (resolved.learning_rate, resolved.patience, resolved.stream) == (learning_rate, patience, stream)
    assert config.learning_rate is None  # a copy
    assert configuration.resolve(resolved) == resolved
    for key, value in (("learning_rate", 0.5), ("patience", 3), ("stream", "epochs"), ("stream", "restarted")):
        switched = config.copy_and_resolve_references()
        switched[key] = value
        expected = resolved.to_dict() | {key: value}
        assert configuration.resolve(switched).to_dict() == expected


def test_settings_common_to_both_protocols():
    """Section 4: batches of 128, k = 5 in training, validation every 128 batches, k = 5,000 in the test."""
    config = configuration.make_config()
    assert (config.batch_size, config.train_samples, config.validate_every, config.test_samples) == (128, 5, 128, 5000)
    assert (config.num_sums, config.num_components, config.shuffle_buffer, config.train_fraction) == (2, 2, 1000, 1)
    assert config.protocol == "paper" and config.max_batches is None and config.num_test_images is None


@pytest.mark.parametrize("name, model", [("spvae", "SPVAE"), ("conv-vae", "Conv-VAE"), ("CONV-SPVAE", "Conv-SPVAE")])
def test_sizes_follow_table_2(name, model):
    for dataset, likelihood in itertools.product(paper.DATASETS, ("continuous", "discrete")):
        config, cell = configuration.make_config(name, dataset, likelihood), paper.CELLS[model, dataset, likelihood]
        assert (config.model, config.hidden_units, config.latent_dim) == (model, cell.hidden_units, cell.latent_dim)


def test_own_images_take_the_sizes_and_the_rounding_of_a_cell():
    for preset, sizes in (("tuned", (32, 50)), ("checkpoint", (100, 50))):
        config, = table1.make_configs(preset, "released", ["SPVAE"], ["a/mine.npz"], ["discrete"], [0],
                                        cell_of="svhn_cropped")
        assert (config.hidden_units, config.latent_dim, config.round_pixels) == (*sizes, False)
        assert config.dataset == "a/mine.npz" and "round_pixels=false" in configuration.run_name(config)
    config = configuration.make_config("VAE", "mine.npz", "continuous", cell_of="cifar10")
    assert (config.hidden_units, config.latent_dim, config.round_pixels) == (300, 50, None)


@pytest.mark.parametrize("dataset, cell_of", [("mnist", "svhn_cropped"), ("mnist_sample", "mnist"),
                                              ("mine.npz", "mnist_sample"), ("mine.npz", "other.npz")])
def test_cell_of_is_for_own_images(dataset, cell_of):
    with pytest.raises(InputError, match=f"^cell_of is '{cell_of}' for dataset '{dataset}'"):
        configuration.make_config("VAE", dataset, cell_of=cell_of)


BAD_VALUES = ([(key, value) for value in (0, -1) for key in (
    "hidden_units", "latent_dim", "num_sums", "num_components", "batch_size", "train_samples", "validate_every",
    "patience", "shuffle_buffer", "test_samples", "delta", "max_batches", "num_test_images")]
    + [(key, -1) for key in ("seed", "data_seed")]
    + [("learning_rate", value) for value in (0.0, -0.1, math.nan, math.inf)]
    + [("train_fraction", value) for value in (0.0, -0.5, 1.5, math.nan)]
    + [("model", "GAN"), ("dataset", "imagenet"), ("likelihood", "poisson"), ("protocol", "mine"), ("stream", "river")])


@pytest.mark.parametrize("key, value", BAD_VALUES)
def test_bad_value_is_refused_by_name(key, value):
    config = configuration.make_config()
    config[key] = value
    with pytest.raises(InputError, match=f"^{key} is {value!r}[,;:]") as error:
        configuration.resolve(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arguments, key", [(("GAN",), "model"), (("VAE", "imagenet"), "dataset"),
                                            (("VAE", "mnist", "poisson"), "likelihood")])
def test_unknown_names_are_refused(arguments, key):
    with pytest.raises(InputError, match=f"^{key} is {arguments[-1]!r}"):
        configuration.make_config(*arguments)


# --- runs -------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(results folder, record) of a run."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, experiment.run(make_config(), folder, make_dataset())


def name_of(config):
    return configuration.run_name(configuration.resolve(config))


def test_run_leaves_record_curve_and_checkpoint(finished):
    folder, record = finished
    name = name_of(make_config())
    assert files(folder / "paper") == sorted([
        f"curves/{name}.csv", f"records/{name}.json",
        *(f"runs/{name}/{file}" for file in (".lock", "checkpoint.npz", "config.json", "log.csv"))])
    assert tuple(record) == (*results.FIELDS, "config")
    assert results.read_record(folder / "paper", name) == record
    curve = read_table(folder / "paper" / "curves" / f"{name}.csv")
    assert [row["batch"] for row in curve] == [2, 4, 6]
    assert record["val_ll_k5"] == round(max(row["val_ll"] for row in curve), 3)
    assert record["best_batch"] == max(curve, key=lambda row: row["val_ll"])["batch"]
    assert (record["num_train"], record["batches"], record["num_samples"], record["num_test_images"]) == (24, 6, 12, 5)
    assert record["dataset"] == "tiny" and record["paper_test_ll"] is None


def test_record_is_that_of_the_saved_model(finished):
    folder, record = finished
    model = experiment.load(folder / "paper" / "runs" / name_of(make_config()))
    assert record["params"] == model.count_params()
    test = make_dataset().test
    values = model.log_prob(test[:5], 12, seed=0).numpy().astype(np.float64)
    assert record["test_ll"] == round(values.mean(), 3)
    assert record["test_ll_stderr"] == round(values.std(ddof=1) / math.sqrt(5), 3)
    assert record["test_ll_k5"] == round(float(model.log_prob(test, 5, seed=0).numpy().mean(dtype=np.float64)), 3)


def test_paper_number_stands_beside_ours(tmp_path):
    config = make_config("VAE", dataset="mnist_sample", likelihood="discrete", max_batches=2)
    record = experiment.run(config, tmp_path, make_dataset())
    assert record["paper_test_ll"] == -2351


def test_finished_run_is_not_repeated(finished, monkeypatch):
    folder, record = finished
    monkeypatch.setattr(experiment, "_train", None)
    assert experiment.run(make_config(), folder, make_dataset()) == record


def test_record_made_otherwise_is_refused_and_kept(finished):
    folder, record = finished
    with pytest.raises(InputError, match="test_samples=12, not 13"):
        experiment.run(make_config(test_samples=13), folder, make_dataset())
    assert results.read_record(folder / "paper", name_of(make_config())) == record


def test_record_older_than_a_key_still_counts(finished, tmp_path):
    folder, record = finished
    config = {key: value for key, value in record["config"].items() if key != "shuffle_buffer"}
    results.write_record(tmp_path / "paper", name_of(make_config()), record | {"config": config})
    assert experiment.finished(configuration.resolve(make_config()), tmp_path)["test_ll"] == record["test_ll"]


def test_own_images_are_known_by_their_content(tmp_path):
    """A file named like a data set is not that data set, and another file of the same name is another."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mnist.npz").write_bytes(folder.encode())
    config = make_config(dataset=str(tmp_path / "a" / "mnist.npz"), max_batches=2)
    record = experiment.run(config, tmp_path, make_dataset())
    assert record["dataset"] == "npz_mnist" and record["config"]["dataset"] == "mnist.npz"
    table1.write(tmp_path / "paper")
    assert compare.without_a_cell(compare.read(tmp_path / "paper")) == ["npz_mnist"]
    assert experiment.run(config, tmp_path, make_dataset()) == record
    other = make_config(dataset=str(tmp_path / "b" / "mnist.npz"), max_batches=2)
    with pytest.raises(InputError, match="holds .*npz_mnist.* with dataset_sha256="):
        experiment.run(other, tmp_path, make_dataset())
    (tmp_path / "a" / "mnist.npz").write_bytes(b"changed")
    with pytest.raises(InputError, match="with dataset_sha256="):
        experiment.run(config, tmp_path, make_dataset())
    (tmp_path / "paper" / "records" / f"{name_of(config)}.json").unlink()
    with pytest.raises(InputError, match="holds a run with dataset_sha256="):
        experiment.run(config, tmp_path, make_dataset())


def test_run_knows_the_images_it_was_trained_on(tmp_path):
    path, rng = tmp_path / "mine.npz", np.random.default_rng(0)

    def write():
        np.savez(path, **{f"x_{split}": rng.integers(0, 256, [9, 12, 12], np.uint8)
                          for split in ("train", "validation", "test")})
    write()
    experiment.train(make_config(dataset=str(path), max_batches=2), tmp_path / "run")
    assert len(experiment.load_data(experiment.load_config(tmp_path / "run")).test) == 9
    write()
    with pytest.raises(InputError, match="mine.npz has changed since the run was trained: its dataset_sha256 is "):
        experiment.load_data(experiment.load_config(tmp_path / "run"))


def test_run_on_own_images_goes_on_where_their_file_has_moved(tmp_path):
    """The same images are the same run's, whatever folder they lie in; config.json then names the new place."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.npz").write_bytes(b"images")
    first, moved = (make_config(dataset=str(tmp_path / folder / "mine.npz"), max_batches=batches)
                    for folder, batches in (("a", 2), ("b", 4)))
    experiment.train(first, tmp_path / "run", make_dataset())
    _, trainer, _ = experiment.train(moved, tmp_path / "run", make_dataset())
    assert trainer.step == 4 and experiment.load_config(tmp_path / "run").dataset == moved.dataset


def test_run_that_goes_on_elsewhere_names_both_devices(tmp_path, monkeypatch):
    devices = []
    for device, batches in (("a GPU", 2), ("two cores", 4), ("a GPU", 6)):
        monkeypatch.setattr(environment, "device", lambda device=device: device)
        experiment.train(make_config(max_batches=batches), tmp_path, make_dataset())
        devices.append(experiment.load_config(tmp_path).device)
    assert devices == ["a GPU", "a GPU; two cores", "a GPU; two cores"]


def test_finished_run_whose_log_was_not_carried_along_is_recorded(tmp_path):
    folder = tmp_path / "paper" / "runs" / name_of(make_config())
    experiment.train(make_config(), folder, make_dataset())
    log = (folder / "log.csv").read_text()
    (folder / "log.csv").unlink()
    assert experiment.run(make_config(), tmp_path, make_dataset())["batches"] == 6
    assert (tmp_path / "paper" / "curves" / f"{folder.name}.csv").read_text() == log


def test_run_is_one_processs_until_it_is_recorded(tmp_path, monkeypatch):
    folder, tested = tmp_path / "paper" / "runs" / name_of(make_config()), []

    def evaluate(*arguments, **kwargs):
        with pytest.raises(InputError, match="another process is at work"), lock(folder):
            pass
        tested.append(real(*arguments, **kwargs))
        return tested[-1]

    real = experiment.evaluate
    monkeypatch.setattr(experiment, "evaluate", evaluate)
    record = experiment.run(make_config(), tmp_path, make_dataset())
    assert [e.num_samples for e in tested] == [5, 12] and record["test_ll"] == round(tested[1].mean, 3)
    with lock(folder):
        pass


def test_run_that_never_validated_holds_no_model(tmp_path):
    dataset = make_dataset()
    dataset.train[:] = np.nan
    with pytest.raises(training.NonFiniteError):
        experiment.train(make_config(), tmp_path / "run", dataset)
    with pytest.raises(InputError, match="run failed before its first validation; it holds no trained model"):
        experiment.load(tmp_path / "run")


def test_checkpoint_of_nobody_knows_what_is_not_gone_on_with(tmp_path):
    experiment.train(make_config(max_batches=2), tmp_path / "run", make_dataset())
    (tmp_path / "run" / "config.json").unlink()
    before = files(tmp_path)
    with pytest.raises(InputError, match="holds a checkpoint, but no config.json .* delete that folder"):
        experiment.train(make_config(seed=7, learning_rate=0.5), tmp_path / "run", make_dataset())
    assert files(tmp_path) == before


def test_folder_of_a_run_is_one_processs(tmp_path):
    with lock(tmp_path / "run"):
        with pytest.raises(InputError, match="another process is at work in"):
            experiment.train(make_config(), tmp_path / "run", make_dataset())
        assert files(tmp_path) == ["run/.lock"]
    experiment.train(make_config(max_batches=2), tmp_path / "run", make_dataset())
    assert experiment.load(tmp_path / "run")


def test_lock_ends_with_its_process(tmp_path):
    code = ("import os, sys; from spvae_tf.files import lock\n"
            "with lock(sys.argv[1]): print('locked', flush=True); sys.stdin.read()")
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], text=True, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match="another process"), lock(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with lock(tmp_path):
        pass


def test_run_killed_at_its_last_checkpoint_keeps_its_whole_curve(tmp_path, monkeypatch):
    save, when = checkpoint.save, None

    def killed(*arguments):
        if when == "after":
            save(*arguments)
        raise KeyboardInterrupt

    for when in ("before", "after"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checkpoint, "save", killed)
            experiment.run(make_config(), tmp_path / when, make_dataset())
        experiment.run(make_config(), tmp_path / when, make_dataset())
        curve = tmp_path / when / "paper" / "curves" / f"{name_of(make_config())}.csv"
        assert [row["batch"] for row in read_table(curve)] == [2, 4, 6]


def test_commit_of_a_foreign_repository_is_unknown(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "another"], check=True)
    (tmp_path / "provenance.py").write_text("")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "provenance.py"))
    assert environment.commit() == "unknown"
    subprocess.run([*git, "add", "provenance.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    assert len(environment.commit()) == 10


def test_fewer_batches_than_the_run_has_had_are_refused(tmp_path):
    experiment.train(make_config(), tmp_path, make_dataset())
    with pytest.raises(InputError, match="has had 6 already"):
        experiment.train(make_config(max_batches=4), tmp_path, make_dataset())


def test_more_test_images_than_there_are_are_refused(tmp_path):
    with pytest.raises(InputError, match="the test set has"):
        experiment.run(make_config(num_test_images=1000), tmp_path, make_dataset())
    assert not files(tmp_path)


def test_a_graph_of_the_users_own(tmp_path):
    graph = random_binary_trees(144, depth=2, num_repetitions=3, seed=0)
    graph.save(tmp_path / "graph.json")
    config = make_config(graph=str(tmp_path / "graph.json"), delta=None)
    model, _, _ = experiment.train(config, tmp_path / "run", make_dataset())
    assert model.graph == graph
    (tmp_path / "graph.json").unlink()  # the run keeps the graph itself
    x = make_dataset().test
    loaded = experiment.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.log_prob(x, 5, seed=0), model.log_prob(x, 5, seed=0))
    with pytest.raises(InputError, match="graph is for SPVAE"):
        configuration.resolve(make_config("VAE", graph=graph.to_json(), delta=None))


def test_runs_in_turn_end_as_if_alone(finished, tmp_path):
    folder, record = finished
    kept = {}
    experiment.run(make_config(seed=1), tmp_path, make_dataset(num_train=40), kept=kept)
    found = experiment.run(make_config(), tmp_path, make_dataset(), kept=kept)
    assert found | {"train_seconds": record["train_seconds"]} == record
    name = f"{name_of(make_config())}/checkpoint.npz"
    arrays, expected = (checkpoint.restore(f / "paper" / "runs" / name)[0] for f in (tmp_path, folder))
    for group in expected:
        for a, b in zip(arrays[group], expected[group], strict=True):
            np.testing.assert_array_equal(a, b)


def test_only_models_of_the_same_make_are_taken_over(tmp_path):
    kept, changes = {}, ({}, {"seed": 5}, {"latent_dim": 3}, {"learning_rate": 0.02}, {"num_sums": 3},
                         {"model": "VAE", "delta": None}, {"likelihood": "discrete"})
    configs = [configuration.resolve(make_config(**change)) for change in changes]
    compiled = [experiment._compiled(config, (12, 12), kept) for config in configs]
    assert compiled[1] is compiled[0] and len(set(map(id, compiled))) == len(changes) - 1
    assert list(map(id, kept.values())) == list(map(id, compiled[-experiment.MODELS_KEPT:]))  # the last ones


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


def test_resumed_run_writes_exactly_one_row(tmp_path, finished, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    save, folder = Trainer.save, tmp_path / "paper"

    def save_and_stop(trainer):
        save(trainer)
        if trainer.step == 4:
            raise KeyboardInterrupt
    monkeypatch.setattr(Trainer, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(make_config(), tmp_path, make_dataset())
    table1.write(folder)
    assert read_table(folder / "table1.csv") == []
    monkeypatch.setattr(Trainer, "save", save)
    record = experiment.run(make_config(), tmp_path, make_dataset())
    for _ in range(2):
        table1.write(folder)
        rows = read_table(folder / "table1.csv")
        assert len(rows) == 1
    uncertain = ("train_seconds", "commit")
    assert {k: v for k, v in record.items() if k not in uncertain} == {
        k: v for k, v in finished[1].items() if k not in uncertain}


def test_record_names_what_the_training_began_with(tmp_path, monkeypatch):
    """Of a run that is tested later, by other code on another machine, both machines are named."""
    began = dict(device="slow", versions="old", commit="0000000000")
    for key, value in began.items():
        monkeypatch.setattr(environment, key, lambda value=value: value)
    experiment.run(make_config(), tmp_path, make_dataset(), test=False)
    for key in began:
        monkeypatch.setattr(environment, key, lambda: "new")
    record = experiment.run(make_config(), tmp_path, make_dataset())
    assert record["test_ll"] is not None
    assert {key: record[key] for key in began} == began | dict(device="slow; new")


def test_run_with_a_damaged_record_is_repeated(tmp_path):
    first = experiment.run(make_config(max_batches=2), tmp_path, make_dataset())
    path = tmp_path / "paper" / "records" / f"{name_of(make_config())}.json"
    whole = path.read_text()
    for damaged in (whole[:50], whole.replace('"num_train": 24', '"num_train": null')):
        path.write_text(damaged)
        with pytest.warns(UserWarning, match=path.name):
            again = experiment.run(make_config(max_batches=2), tmp_path, make_dataset())
        assert again["test_ll"] == first["test_ll"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert results.read_record(tmp_path / "paper", path.stem) == again


def test_load_gives_the_best_weights(tmp_path):
    model, trainer, _ = experiment.train(make_config(), tmp_path, make_dataset())
    arrays, state = checkpoint.restore(trainer.path)
    checkpoint.save(trainer.path, arrays | {"weights": [np.zeros_like(a) for a in arrays["weights"]]}, state)
    loaded = experiment.load(tmp_path)
    x = make_dataset().test
    np.testing.assert_array_equal(loaded.log_prob(x, 20, seed=3), model.log_prob(x, 20, seed=3))
    observed = np.random.default_rng(0).random(x.shape) < 0.5
    np.testing.assert_array_equal(loaded.log_prob(x, 20, observed, seed=3), model.log_prob(x, 20, observed, seed=3))
    config = experiment.load_config(tmp_path)
    assert (config.model, config.hidden_units, config.num_train) == ("SPVAE", 4, 24)
    assert tuple(config.image_shape) == (12, 12)
    assert config.learning_rate == 0.001  # resolved


def test_load_of_no_run(tmp_path):
    with pytest.raises(InputError, match=f"^{tmp_path} holds no run"):
        experiment.load(tmp_path)
    for content in ("{", "", "[]", "{}"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError, match="damaged"):
            experiment.load(tmp_path)


def test_load_of_a_damaged_run(finished, tmp_path):
    source = finished[0] / "paper" / "runs" / name_of(make_config())
    config, whole = (source / "config.json").read_text(), (source / "checkpoint.npz").read_bytes()
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError, match="^there is no checkpoint "):
        experiment.load(tmp_path)
    (tmp_path / "checkpoint.npz").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(InputError, match="^checkpoint .* is damaged"):
        experiment.load(tmp_path)
    with pytest.raises(InputError, match="^checkpoint .* is damaged"):  # and training does not start over silently
        experiment.train(make_config(), tmp_path, make_dataset())
    (tmp_path / "checkpoint.npz").write_bytes(whole)
    (tmp_path / "config.json").write_text(config.replace('"hidden_units": 4', '"hidden_units": 5'))
    with pytest.raises(InputError, match="belongs to another model"):
        experiment.load(tmp_path)


@pytest.mark.parametrize("key, value", [("hidden_units", 5), ("latent_dim", 3), ("seed", 1), ("model", "VAE"),
                                        ("likelihood", "discrete"), ("learning_rate", 0.1), ("stream", "restarted"),
                                        ("batch_size", 4), ("delta", 4), ("num_sums", 3), ("train_samples", 3)])
def test_workdir_of_another_configuration_is_refused(finished, key, value):
    workdir = finished[0] / "paper" / "runs" / name_of(make_config())
    before = {path: path.read_bytes() for path in workdir.iterdir()}
    with pytest.raises(InputError, match=rf"^{workdir} holds a run with {key}=.*, not {value!r}"):
        experiment.train(make_config(**{key: value}), workdir, make_dataset())
    assert before == {path: path.read_bytes() for path in workdir.iterdir()}


def test_workdir_of_other_data_is_refused(finished):
    workdir = finished[0] / "paper" / "runs" / name_of(make_config())
    with pytest.raises(InputError, match="holds a run with num_train=24, not 25"):
        experiment.train(make_config(), workdir, make_dataset(num_train=25))


def test_what_may_change_when_a_run_is_continued(tmp_path):
    experiment.train(make_config(max_batches=2), tmp_path, make_dataset())
    _, trainer, _ = experiment.train(make_config(max_batches=4, test_samples=7, num_test_images=None, preset="mini"),
                                     tmp_path, make_dataset())
    assert trainer.step == 4 and len(trainer.history) == 2


def test_evaluation_counts_every_image(monkeypatch):
    class Model:
        def estimate(self, images, num_samples, seed, refinements, progress):
            progress(len(images), images[:, 0])
            return tf.constant(images[:, 0] + num_samples), None
    images = np.array([[-1.0], [3.0], [4.0]], np.float32)
    result = experiment.evaluate(Model(), images, 5)
    assert result.mean == pytest.approx(7) and result.num_samples == 5 and result.num_images == 3
    assert result.stderr == pytest.approx(statistics.stdev([-1, 3, 4]) / math.sqrt(3))
    np.testing.assert_allclose(result.per_image, [4, 8, 9])
    assert math.isnan(experiment.evaluate(Model(), images[:1], 5).stderr)
    for wrong in (math.nan, -math.inf):
        images[1] = wrong
        with pytest.raises(training.NonFiniteError, match=f"^the bound of test image 1 is {wrong} .k = 5.$"):
            experiment.evaluate(Model(), images, 5)


def test_reproduce_table1_goes_on_after_a_failure(tmp_path, monkeypatch, capsys):
    configs = [configuration.resolve(make_config(model, max_batches=2)) for model in ("SPVAE", "VAE")]
    monkeypatch.setattr(experiment, "load_data", lambda config: make_dataset())
    train = experiment._train

    def failing(config, *arguments):
        if config.model == "SPVAE":
            raise training.NonFiniteError("the bound is not finite")
        return train(config, *arguments)
    monkeypatch.setattr(experiment, "_train", failing)
    assert table1.reproduce(configs, tmp_path) == 1
    assert "the bound is not finite" in capsys.readouterr().err
    assert [row["model"] for row in read_table(tmp_path / "paper" / "table1.csv")] == ["VAE"]
    monkeypatch.setattr(experiment, "_train", train)
    assert table1.reproduce(configs, tmp_path) == 0
    assert "already there" in capsys.readouterr().out
    assert [row["model"] for row in read_table(tmp_path / "paper" / "table1.csv")] == ["SPVAE", "VAE"]
    assert table1.reproduce(configs, tmp_path) == 0
    assert len(read_table(tmp_path / "paper" / "table1.csv")) == 2


# --- the paper's numbers ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("model, dataset, likelihood, test_ll, kparams, hidden, latent", [
    ("SPVAE", "mnist", "continuous", 2819, 413, 30, 25),
    ("SPVAE", "svhn_cropped", "continuous", 1936, 511, 32, 25),
    ("SPVAE", "cifar10", "continuous", 1283, 511, 32, 25),
    ("SPVAE", "mnist", "discrete", -1532, 310, 30, 25),
    ("SPVAE", "svhn_cropped", "discrete", -3891, 461, 32, 50),
    ("SPVAE", "cifar10", "discrete", -5543, 353, 30, 25),
    ("VAE", "mnist", "continuous", 2598, 1545, 300, 200),
    ("VAE", "cifar10", "continuous", 896, 1653, 300, 50),
    ("VAE", "svhn_cropped", "discrete", -4965, 3108, 600, 100),
    ("VAE", "cifar10", "discrete", -7200, 3288, 600, 200),
    ("Conv-SPVAE", "mnist", "continuous", 2702, 1259, 64, 25),
    ("Conv-SPVAE", "svhn_cropped", "discrete", -3666, 1603, 64, 25),
    ("Conv-SPVAE", "cifar10", "discrete", -4562, 1026, 32, 25),
    ("Conv-VAE", "mnist", "continuous", 2907, 894, 64, 200),
    ("Conv-VAE", "svhn_cropped", "discrete", -4115, 1436, 128, 200),
    ("Conv-VAE", "cifar10", "continuous", 1191, 1219, 128, 150)])
def test_tables_of_the_paper(model, dataset, likelihood, test_ll, kparams, hidden, latent):
    cell = paper.CELLS[model, dataset, likelihood]
    assert (cell.test_ll, cell.kparams, cell.hidden_units, cell.latent_dim) == (test_ll, kparams, hidden, latent)
    assert paper.cell(model, dataset, likelihood) == cell


def test_table_is_complete_and_says_what_the_paper_says():
    """Section 5: hierarchies beat their VAEs in every cell but one, convolutional on continuous MNIST."""
    assert set(paper.CELLS) == set(itertools.product(MODELS, paper.DATASETS, ("continuous", "discrete")))
    worse = [(prefix, dataset, likelihood) for prefix in ("", "Conv-") for dataset in paper.DATASETS
             for likelihood in ("continuous", "discrete")
             if paper.CELLS[f"{prefix}SPVAE", dataset, likelihood].test_ll
             <= paper.CELLS[f"{prefix}VAE", dataset, likelihood].test_ll]
    assert worse == [("Conv-", "mnist", "continuous")]


def test_checkpoints_of_other_sizes_than_table_2():
    """Two of Table 1's numbers come from models of other sizes than Table 2's."""
    assert {key: cell.checkpoint for key, cell in paper.CELLS.items() if cell.checkpoint} == {
        ("SPVAE", "svhn_cropped", "discrete"): (100, 50), ("Conv-VAE", "mnist", "discrete"): (64, 100)}


def test_a_sample_counts_as_its_whole():
    assert paper.cell("VAE", "mnist_sample", "continuous").test_ll == 2598
    assert paper.cell("VAE", "cifar10_sample", "discrete").test_ll == -7200
    assert paper.cell("VAE", "faces.npz", "continuous") is None
