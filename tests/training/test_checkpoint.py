"""Checkpoints: whole, damaged, of another model."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from small_runs import files_in

from spvae_tf.errors import InputError
from spvae_tf.training import checkpoint

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
    assert files_in(tmp_path) == ["new/folder/checkpoint.npz"]


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
