"""Files that are whole or absent, tables, and locks."""

import errno
import fcntl
import math
import os
import subprocess
import sys

import pytest
from small_runs import files_in, make_config, make_dataset, make_record, without_config

from spvae_tf import files
from spvae_tf.errors import InputError
from spvae_tf.files import lock, read_table, write_atomically, write_table, write_text
from spvae_tf.training import checkpoint, records
from spvae_tf.training.data import check_name
from spvae_tf.training.run import Run


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
    assert files_in(tmp_path) == ["file"]
    if raised is InputError:
        assert str(caught.value) == f"cannot write {path}: No space left on device"


def test_write_text_replaces_the_file(tmp_path):
    write_text(tmp_path / "a" / "file", "old and longer")
    write_text(tmp_path / "a" / "file", "π")
    assert (tmp_path / "a" / "file").read_bytes() == "π".encode()
    assert files_in(tmp_path) == ["a/file"]


@pytest.mark.parametrize("below", ["file", "file/a", "file/a/b"])
def test_unwritable_folder(tmp_path, below):
    (tmp_path / "file").write_text("a regular file where a folder is wanted")
    with pytest.raises(InputError, match="^cannot write ") as error:
        write_text(tmp_path / below / "x.csv", "text")
    assert "\n" not in str(error.value) and str(tmp_path / below / "x.csv") in str(error.value)
    with pytest.raises(InputError, match="^cannot write "):
        checkpoint.save(tmp_path / below / "c.npz", {}, {})
    with pytest.raises(InputError, match="^cannot write "):
        records.write_record(tmp_path / below, "name", make_record())
    with pytest.raises(InputError, match="^cannot write "):
        Run(make_config(), tmp_path / below, make_dataset()).train()


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


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_lock_where_the_file_system_has_none(tmp_path, monkeypatch):
    """As on some network drives: one process at a time, and a dead one's lock is named with the file to delete."""
    def flock(fd, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.1)
    with lock(tmp_path / "a"):
        with pytest.raises(InputError, match="^another process is at work in "), lock(tmp_path / "a"):
            pass
    with lock(tmp_path / "a"):
        pass
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".lock").write_text("12345\nnode7.example\n")
    for wait in (False, True):
        with pytest.raises(InputError, match=f"process 12345 on node7.example: if .* delete {tmp_path}/b/.lock$"):
            with lock(tmp_path / "b", wait):
                pass


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", "import os; os._exit(0)"])
    dead.wait()
    names = {pid: f".checkpoint[1].npz.{pid}.tmp" for pid in (dead.pid, 10**12, os.getpid(), os.getppid())}

    def leave():
        for name in (*names.values(), ".notes.tmp", f".other.{dead.pid}.tmp"):
            (tmp_path / name).write_text("half")
        (tmp_path / f".served.{dead.pid}.tmp").mkdir(exist_ok=True)

    leave()
    with lock(tmp_path):
        assert files_in(tmp_path) == sorted([names[os.getppid()], ".lock", ".notes.tmp"])
    assert not (tmp_path / f".served.{dead.pid}.tmp").exists()
    leave()
    write_text(tmp_path / "checkpoint[1].npz", "whole")  # of this file alone: other files may be others' now
    assert files_in(tmp_path) == sorted([names[os.getppid()], f".other.{dead.pid}.tmp", "checkpoint[1].npz", ".lock",
                                         ".notes.tmp"])


def test_home_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.expand("~/a") == f"{tmp_path}/a" and files.expand("a/~") == "a/~"
    with pytest.raises(InputError, match="^~nobody.here/x: ~nobody.here is no user's home folder; ./~nobody.here/x "):
        files.expand("~nobody.here/x")


def test_table_round_trip(tmp_path):
    rows = [make_record(), make_record(paper_test_ll=None, test_ll=-1.5e-7, seed=2**31),
               make_record(device="a\nb, π"), make_record(dataset=os.fsdecode(b"not UTF-8: \xff"))]
    write_table(tmp_path / "t.csv", rows, records.FIELDS)
    assert read_table(tmp_path / "t.csv") == [without_config(record) for record in rows]
    write_table(tmp_path / "t.csv", [], records.FIELDS)
    assert read_table(tmp_path / "t.csv") == []
    with pytest.raises(InputError, match="^there is no table "):
        read_table(tmp_path / "missing.csv")
    write_table(tmp_path / "t.csv", [make_record(test_ll_stderr=math.nan)], records.FIELDS)
    assert math.isnan(read_table(tmp_path / "t.csv")[0]["test_ll_stderr"])


@pytest.mark.parametrize("commit", ["1234567890", "12345e6789", "0123456789"])
def test_commit_that_looks_like_a_number_stays_text(tmp_path, commit):
    write_table(tmp_path / "t.csv", [make_record(commit=commit)], records.FIELDS)
    assert read_table(tmp_path / "t.csv")[0]["commit"] == commit


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a named pipe")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "images.npz")
    for read in (lambda path: files.read_npz(path, ["x"]), check_name):
        with pytest.raises(InputError, match="images.npz: not a readable .npz file .it is a folder, a pipe"):
            read(str(tmp_path / "images.npz"))
