"""Records of finished runs."""

import json
import math

import pytest
from small_runs import files_in, make_record

from spvae_tf.training import records


def test_record_round_trip(tmp_path):
    record = make_record(paper_test_ll=None)
    assert records.read_record(tmp_path, "a") is None
    records.write_record(tmp_path, "a", record)
    assert records.read_record(tmp_path, "a") == record
    assert files_in(tmp_path) == ["records/a.json"]
    assert set(record) == {*records.FIELDS, "config"}


@pytest.mark.parametrize("content", [b"", b"{", b'{"model": "SPVAE"}', b"[1, 2]", b"7", b"null", b"\xff\xfe",
                                     json.dumps(make_record()).encode()[:-3]])
def test_damaged_record_is_named_and_left_out(tmp_path, content):
    records.write_record(tmp_path, "sound", make_record())
    path = tmp_path / "records" / "damaged.json"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=str(path)):
        assert records.read_record(tmp_path, "damaged") is None
    with pytest.warns(UserWarning, match=str(path)):
        assert [r["params"] for r in records.read_records(tmp_path)] == [413352]


@pytest.mark.parametrize("damage, what", [
    (dict(num_train=None), "num_train is None"), (dict(val_ll_k5="good"), "val_ll_k5 is 'good'"),
    (dict(seed="0"), "seed is '0'"), (dict(device=7), "device is 7"), (dict(model="GAN"), "model is 'GAN'"),
    (dict(protocol="mine"), "protocol is 'mine'"), (dict(num_samples=None), "only a part of the test"),
    (dict(test_ll=math.nan), "test_ll is nan"), (dict(test_ll_k5=-math.inf), "test_ll_k5 is -inf"),
    (dict(config={"protocol": "mine"}), "protocol is 'mine'"), (dict(config={"seed": 1}), "seed is 0, but 1"),
    (dict(config={"batch_size": "many"}), "batch_size is 'many'; it must be an integer"), (dict(config=7), "'int'")])
def test_record_that_means_nothing_is_named_and_left_out(tmp_path, damage, what):
    records.write_record(tmp_path, "sound", make_record())
    records.write_record(tmp_path, "damaged", make_record(**damage))
    with pytest.warns(UserWarning, match=f"damaged.json is damaged .*{what}.*its run will be repeated"):
        assert records.read_record(tmp_path, "damaged") is None
