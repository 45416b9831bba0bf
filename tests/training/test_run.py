"""A run: trained, tested, recorded, continued, loaded again; and what is refused."""

import math
import subprocess
import warnings

import numpy as np
import pytest
from small_runs import files_in, make_config, make_dataset

from spvae_tf.errors import InputError
from spvae_tf.files import lock, read_npz, read_table
from spvae_tf.model.region_graph import random_binary_trees
from spvae_tf.training import checkpoint, configuration, provenance, records, run
from spvae_tf.training import trainer as training
from spvae_tf.training.run import Run
from spvae_tf.training.trainer import CompiledCache, Trainer

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(results folder, record) of a run."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run.complete(make_config(), folder, make_dataset())


def name_of(config):
    return configuration.resolve(config).name


def test_run_leaves_record_curve_and_checkpoint(finished):
    folder, record = finished
    name = name_of(make_config())
    assert files_in(folder / "paper") == sorted([
        f"curves/{name}.csv", f"records/{name}.json",
        f"values/{name}.npz", f"weights/{name}.npz",
        *(f"runs/{name}/{file}" for file in (".lock", "checkpoint.npz", "config.json", "log.csv",
                                             "values-k12-seed0-refinements0.npz"))])
    assert tuple(record) == (*records.FIELDS, "image_shape", "config")
    assert records.read_record(folder / "paper", name) == record
    curve = read_table(folder / "paper" / "curves" / f"{name}.csv")
    assert [row["batch"] for row in curve] == [2, 4, 6]
    assert record["val_ll_k5"] == round(max(row["val_ll"] for row in curve), 3)
    assert record["best_batch"] == max(curve, key=lambda row: row["val_ll"])["batch"]
    assert (record["num_train"], record["batches"], record["num_samples"], record["num_test_images"]) == (24, 6, 12, 5)
    assert record["dataset"] == "tiny" and record["paper_test_ll"] is None


def test_record_is_that_of_the_saved_model(finished):
    folder, record = finished
    model = run.load(folder / "paper" / "runs" / name_of(make_config()))
    assert record["params"] == model.count_params()
    test = make_dataset().test
    values = model.log_prob(test[:5], 12, seed=0).numpy().astype(np.float64)
    assert record["test_ll"] == round(values.mean(), 3)
    kept = read_npz(folder / "paper" / "values" / f"{name_of(make_config())}.npz", ["log_prob", "k", "seed"])
    np.testing.assert_array_equal(kept["log_prob"], np.float32(values))
    assert (kept["k"], kept["seed"]) == (12, 0)
    with np.load(folder / "paper" / "weights" / f"{name_of(make_config())}.npz", allow_pickle=False) as weights:
        for key, variable in zip(sorted(weights), model.trainable_variables, strict=True):
            np.testing.assert_array_equal(weights[key], variable)
    assert record["test_ll_stderr"] == round(values.std(ddof=1) / math.sqrt(5), 3)
    assert record["test_ll_k5"] == round(float(model.log_prob(test, 5, seed=0).numpy().mean(dtype=np.float64)), 3)


def test_paper_number_stands_beside_ours(tmp_path):
    config = make_config("VAE", dataset="mnist_sample", likelihood="discrete", max_batches=2)
    record = run.complete(config, tmp_path, make_dataset())
    assert record["paper_test_ll"] == -2351


def test_finished_run_is_not_repeated(finished, monkeypatch):
    folder, record = finished
    monkeypatch.setattr(Trainer, "run", None)
    assert run.complete(make_config(), folder, make_dataset()) == record


def test_record_made_otherwise_is_refused_and_kept(finished):
    folder, record = finished
    with pytest.raises(InputError, match="test_samples=12, not 13"):
        run.complete(make_config(test_samples=13), folder, make_dataset())
    assert records.read_record(folder / "paper", name_of(make_config())) == record


def test_record_older_than_a_key_still_counts(finished, tmp_path):
    folder, record = finished
    config = {key: value for key, value in record["config"].items() if key != "shuffle_buffer"}
    records.write_record(tmp_path / "paper", name_of(make_config()), record | {"config": config})
    assert run.finished(configuration.resolve(make_config()), tmp_path)["test_ll"] == record["test_ll"]


def test_own_images_are_known_by_their_content(tmp_path):
    """A file named like a data set is not that data set, and another file of the same name is another."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mnist.npz").write_bytes(folder.encode())
    config = make_config(dataset=str(tmp_path / "a" / "mnist.npz"), max_batches=2)
    record = run.complete(config, tmp_path, make_dataset())
    assert record["dataset"] == "npz_mnist" and record["config"]["dataset"] == "mnist.npz"
    assert run.complete(config, tmp_path, make_dataset()) == record
    other = make_config(dataset=str(tmp_path / "b" / "mnist.npz"), max_batches=2)
    with pytest.raises(InputError, match="holds .*npz_mnist.* with dataset_sha256="):
        run.complete(other, tmp_path, make_dataset())
    (tmp_path / "a" / "mnist.npz").write_bytes(b"changed")
    with pytest.raises(InputError, match="with dataset_sha256="):
        run.complete(config, tmp_path, make_dataset())
    (tmp_path / "paper" / "records" / f"{name_of(config)}.json").unlink()
    with pytest.raises(InputError, match="holds a run with dataset_sha256="):
        run.complete(config, tmp_path, make_dataset())


def test_run_knows_the_images_it_was_trained_on(tmp_path):
    path, rng = tmp_path / "mine.npz", np.random.default_rng(0)

    def write():
        np.savez(path, **{f"x_{split}": rng.integers(0, 256, [9, 12, 12], np.uint8)
                          for split in ("train", "validation", "test")})
    write()
    Run(make_config(dataset=str(path), max_batches=2), tmp_path / "run").train()
    assert len(Run.open(tmp_path / "run").dataset.test) == 9
    write()
    with pytest.raises(InputError, match="mine.npz has changed since the run was trained: its dataset_sha256 is "):
        _ = Run.open(tmp_path / "run").dataset


def test_run_on_own_images_goes_on_where_their_file_has_moved(tmp_path):
    """The same images are the same run's, whatever folder they lie in; config.json then names the new place."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.npz").write_bytes(b"images")
    first, moved = (make_config(dataset=str(tmp_path / folder / "mine.npz"), max_batches=batches)
                    for folder, batches in (("a", 2), ("b", 4)))
    Run(first, tmp_path / "run", make_dataset()).train()
    trainer = Run(moved, tmp_path / "run", make_dataset()).train()
    assert trainer.step == 4 and Run.open(tmp_path / "run").config.dataset == moved.dataset


def test_run_that_goes_on_elsewhere_names_both_devices(tmp_path, monkeypatch):
    devices = []
    for device, batches in (("a GPU", 2), ("two cores", 4), ("a GPU", 6)):
        monkeypatch.setattr(provenance, "device", lambda device=device: device)
        Run(make_config(max_batches=batches), tmp_path, make_dataset()).train()
        devices.append(Run.open(tmp_path).began()["device"])
    assert devices == ["a GPU", "a GPU; two cores", "a GPU; two cores"]


def test_finished_run_whose_log_was_not_carried_along_is_recorded(tmp_path):
    folder = tmp_path / "paper" / "runs" / name_of(make_config())
    Run(make_config(), folder, make_dataset()).train()
    log = (folder / "log.csv").read_text()
    (folder / "log.csv").unlink()
    assert run.complete(make_config(), tmp_path, make_dataset())["batches"] == 6
    assert (tmp_path / "paper" / "curves" / f"{folder.name}.csv").read_text() == log


def test_run_is_one_processs_until_it_is_recorded(tmp_path, monkeypatch):
    folder, tested = tmp_path / "paper" / "runs" / name_of(make_config()), []

    def evaluate(*arguments, **kwargs):
        with pytest.raises(InputError, match="another process is at work"), lock(folder):
            pass
        tested.append(real(*arguments, **kwargs))
        return tested[-1]

    real = run.evaluate
    monkeypatch.setattr(run, "evaluate", evaluate)
    record = run.complete(make_config(), tmp_path, make_dataset())
    assert [e.num_samples for e in tested] == [5, 12] and record["test_ll"] == round(tested[1].mean, 3)
    with lock(folder):
        pass


def test_run_that_never_validated_holds_no_model(tmp_path):
    dataset = make_dataset()
    dataset.train[:] = np.nan
    with pytest.raises(training.NonFiniteError):
        Run(make_config(), tmp_path / "run", dataset).train()
    with pytest.raises(InputError, match="run failed before its first validation; it holds no trained model"):
        run.load(tmp_path / "run")


def test_checkpoint_of_nobody_knows_what_is_not_gone_on_with(tmp_path):
    Run(make_config(max_batches=2), tmp_path / "run", make_dataset()).train()
    (tmp_path / "run" / "config.json").unlink()
    before = files_in(tmp_path)
    with pytest.raises(InputError, match="holds a checkpoint, but no config.json .* delete that folder"):
        Run(make_config(seed=7, learning_rate=0.5), tmp_path / "run", make_dataset()).train()
    assert files_in(tmp_path) == before


def test_folder_of_a_run_is_one_processs(tmp_path):
    with lock(tmp_path / "run"):
        with pytest.raises(InputError, match="another process is at work in"):
            Run(make_config(), tmp_path / "run", make_dataset()).train()
        assert files_in(tmp_path) == ["run/.lock"]
    Run(make_config(max_batches=2), tmp_path / "run", make_dataset()).train()
    assert run.load(tmp_path / "run")


def test_run_killed_at_its_last_checkpoint_keeps_its_whole_curve(tmp_path, monkeypatch):
    save, when = checkpoint.save, None

    def killed(*arguments):
        if when == "after":
            save(*arguments)
        raise KeyboardInterrupt

    for when in ("before", "after"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checkpoint, "save", killed)
            run.complete(make_config(), tmp_path / when, make_dataset())
        run.complete(make_config(), tmp_path / when, make_dataset())
        curve = tmp_path / when / "paper" / "curves" / f"{name_of(make_config())}.csv"
        assert [row["batch"] for row in read_table(curve)] == [2, 4, 6]


def test_commit_of_a_foreign_repository_is_unknown(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "another"], check=True)
    (tmp_path / "provenance.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.commit() == "unknown"
    subprocess.run([*git, "add", "provenance.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    assert len(provenance.commit()) == 10


def test_fewer_batches_than_the_run_has_had_are_refused(tmp_path):
    Run(make_config(), tmp_path, make_dataset()).train()
    with pytest.raises(InputError, match="has had 6 already"):
        Run(make_config(max_batches=4), tmp_path, make_dataset()).train()


def test_more_test_images_than_there_are_are_refused(tmp_path):
    with pytest.raises(InputError, match="the test set has"):
        run.complete(make_config(num_test_images=1000), tmp_path, make_dataset())
    assert not files_in(tmp_path)


def test_a_graph_of_the_users_own(tmp_path):
    graph = random_binary_trees(144, depth=2, num_repetitions=3, seed=0)
    graph.save(tmp_path / "graph.json")
    config = make_config(graph=str(tmp_path / "graph.json"), delta=None)
    trained = Run(config, tmp_path / "run", make_dataset())
    trained.train()
    model = trained.model
    assert model.graph == graph
    (tmp_path / "graph.json").unlink()  # the run keeps the graph itself
    x = make_dataset().test
    loaded = run.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.log_prob(x, 5, seed=0), model.log_prob(x, 5, seed=0))
    with pytest.raises(InputError, match="graph is for SPVAE"):
        configuration.resolve(make_config("VAE", graph=graph.to_json(), delta=None))


def test_runs_in_turn_end_as_if_alone(finished, tmp_path):
    folder, record = finished
    cache = CompiledCache()
    run.complete(make_config(seed=1), tmp_path, make_dataset(num_train=40), cache=cache)
    found = run.complete(make_config(), tmp_path, make_dataset(), cache=cache)
    assert found | {"train_seconds": record["train_seconds"]} == record
    name = f"{name_of(make_config())}/checkpoint.npz"
    arrays, expected = (checkpoint.restore(f / "paper" / "runs" / name)[0] for f in (tmp_path, folder))
    for group in expected:
        for a, b in zip(arrays[group], expected[group], strict=True):
            np.testing.assert_array_equal(a, b)


def test_only_models_of_the_same_make_are_taken_over(tmp_path):
    cache, changes = CompiledCache(), ({}, {"seed": 5}, {"latent_dim": 3}, {"learning_rate": 0.02}, {"num_sums": 3},
                                       {"model": "VAE", "delta": None}, {"likelihood": "discrete"})
    configs = [configuration.resolve(make_config(**change)) for change in changes]
    compiled = [cache.get(run.make_model(config, (12, 12)), config.learning_rate) for config in configs]
    assert compiled[1] is compiled[0] and len(set(map(id, compiled))) == len(changes) - 1
    assert list(map(id, cache.entries.values())) == list(map(id, compiled[-cache.SIZE:]))  # the last ones


def test_resumed_run_leaves_the_record_of_one_that_was_not_stopped(tmp_path, finished, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    save, folder = Trainer.save, tmp_path / "paper"

    def save_and_stop(trainer):
        save(trainer)
        if trainer.step == 4:
            raise KeyboardInterrupt
    monkeypatch.setattr(Trainer, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run.complete(make_config(), tmp_path, make_dataset())
    assert records.read_records(folder) == []
    monkeypatch.setattr(Trainer, "save", save)
    record = run.complete(make_config(), tmp_path, make_dataset())
    assert len(records.read_records(folder)) == 1
    uncertain = ("train_seconds", "commit")
    assert {k: v for k, v in record.items() if k not in uncertain} == {
        k: v for k, v in finished[1].items() if k not in uncertain}


def test_record_names_what_the_training_began_with(tmp_path, monkeypatch):
    """Of a run that is tested later, by other code on another machine, both machines are named."""
    began = dict(device="slow", versions="old", commit="0000000000")
    for key, value in began.items():
        monkeypatch.setattr(provenance, key, lambda value=value: value)
    run.complete(make_config(), tmp_path, make_dataset(), test=False)
    for key in began:
        monkeypatch.setattr(provenance, key, lambda: "new")
    record = run.complete(make_config(), tmp_path, make_dataset())
    assert record["test_ll"] is not None
    assert {key: record[key] for key in began} == began | dict(device="slow; new")


def test_run_with_a_damaged_record_is_repeated(tmp_path):
    first = run.complete(make_config(max_batches=2), tmp_path, make_dataset())
    path = tmp_path / "paper" / "records" / f"{name_of(make_config())}.json"
    whole = path.read_text()
    for damaged in (whole[:50], whole.replace('"num_train": 24', '"num_train": null')):
        path.write_text(damaged)
        with pytest.warns(UserWarning, match=path.name):
            again = run.complete(make_config(max_batches=2), tmp_path, make_dataset())
        assert again["test_ll"] == first["test_ll"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert records.read_record(tmp_path / "paper", path.stem) == again


def test_load_gives_the_best_weights(tmp_path):
    trained = Run(make_config(), tmp_path, make_dataset())
    trainer = trained.train()
    model = trained.model
    arrays, state = checkpoint.restore(trainer.path)
    checkpoint.save(trainer.path, arrays | {"weights": [np.zeros_like(a) for a in arrays["weights"]]}, state)
    loaded = run.load(tmp_path)
    x = make_dataset().test
    np.testing.assert_array_equal(loaded.log_prob(x, 20, seed=3), model.log_prob(x, 20, seed=3))
    observed = np.random.default_rng(0).random(x.shape) < 0.5
    np.testing.assert_array_equal(loaded.log_prob(x, 20, observed, seed=3), model.log_prob(x, 20, observed, seed=3))
    opened = Run.open(tmp_path)
    assert (opened.config.model, opened.config.hidden_units, opened.began()["num_train"]) == ("SPVAE", 4, 24)
    assert opened.began()["image_shape"] == [12, 12]
    assert opened.config.learning_rate == 0.001  # resolved


def test_load_of_no_run(tmp_path):
    with pytest.raises(InputError, match=f"^{tmp_path} holds no run"):
        run.load(tmp_path)
    for content in ("{", "", "[]", "{}"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError, match="damaged"):
            run.load(tmp_path)


def test_load_of_a_damaged_run(finished, tmp_path):
    source = finished[0] / "paper" / "runs" / name_of(make_config())
    config, whole = (source / "config.json").read_text(), (source / "checkpoint.npz").read_bytes()
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError, match="^there is no checkpoint "):
        run.load(tmp_path)
    (tmp_path / "checkpoint.npz").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(InputError, match="^checkpoint .* is damaged"):
        run.load(tmp_path)
    with pytest.raises(InputError, match="^checkpoint .* is damaged"):  # and training does not start over silently
        Run(make_config(), tmp_path, make_dataset()).train()
    (tmp_path / "checkpoint.npz").write_bytes(whole)
    (tmp_path / "config.json").write_text(config.replace('"hidden_units": 4', '"hidden_units": 5'))
    with pytest.raises(InputError, match="belongs to another model"):
        run.load(tmp_path)


@pytest.mark.parametrize("key, value", [("hidden_units", 5), ("latent_dim", 3), ("seed", 1), ("model", "VAE"),
                                        ("likelihood", "discrete"), ("learning_rate", 0.1), ("stream", "restarted"),
                                        ("batch_size", 4), ("delta", 4), ("num_sums", 3), ("train_samples", 3)])
def test_workdir_of_another_configuration_is_refused(finished, key, value):
    workdir = finished[0] / "paper" / "runs" / name_of(make_config())
    before = {path: path.read_bytes() for path in workdir.iterdir()}
    with pytest.raises(InputError, match=rf"^{workdir} holds a run with {key}=.*, not {value!r}"):
        Run(make_config(**{key: value}), workdir, make_dataset()).train()
    assert before == {path: path.read_bytes() for path in workdir.iterdir()}


def test_workdir_of_other_data_is_refused(finished):
    workdir = finished[0] / "paper" / "runs" / name_of(make_config())
    with pytest.raises(InputError, match="holds a run with num_train=24, not 25"):
        Run(make_config(), workdir, make_dataset(num_train=25)).train()


def test_what_may_change_when_a_run_is_continued(tmp_path):
    Run(make_config(max_batches=2), tmp_path, make_dataset()).train()
    trainer = Run(make_config(max_batches=4, test_samples=7, num_test_images=None, preset="mini"), tmp_path,
                  make_dataset()).train()
    assert trainer.step == 4 and len(trainer.history) == 2
