"""Reading and writing files: limits, one line for whatever is wrong, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ple_gym import files
from ple_gym.messages import MAX_PATH, MAX_SHOWN, plain, show, shown_path


class Wrong(ValueError):
    """The documented error of a reader."""


@pytest.mark.parametrize(
    "failure", [MemoryError(), RecursionError(), KeyError("x"), NotImplementedError("so"), OSError(5, "bad")]
)
def test_whatever_goes_wrong_while_reading_is_one_line_that_names_the_file(failure: Exception) -> None:
    with pytest.raises(Wrong, match=r"^a\\n\.x: [^\n]+$"), files.reading("a\n.x", Wrong, "a thing"):
        raise failure
    with pytest.raises(Wrong, match=r"^x: its own$"), files.reading("x", Wrong, "a thing"):
        raise Wrong("its own")
    with pytest.raises(KeyboardInterrupt), files.reading("x", Wrong, "a thing"):
        raise KeyboardInterrupt


#: What Python says to whoever takes a number for a table, or an object for something else.
PYTHON_WORDS = re.compile(
    "object is not|has no attribute|indices must be|index out of range|NoneType|unexpected keyword"
)


@pytest.mark.parametrize("value", [5, 1.5, "x", True, None, [], [5], {}, {"format": 5}, {"x": [None]}])
def test_a_file_that_holds_something_else_is_refused_without_the_words_of_python(value: object) -> None:
    def words_of(read: Callable[[Any], object]) -> None:
        for context in (files.reading("x", Wrong, "a thing"), files.parsing(Wrong, "not a thing")):
            with pytest.raises(Wrong) as caught, context:
                read(value)
            assert not PYTHON_WORDS.search(str(caught.value)), caught.value

    words_of(lambda value: value["head"]["size"] + 1)
    words_of(lambda value: value[7])
    words_of(lambda value: value.head)
    words_of(lambda value: files.unseal_json("thing, format 1", json.dumps(value).encode()))


def test_only_regular_files_up_to_a_limit_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"1234")
    assert files.read_bytes(path, 4) == b"1234"
    with pytest.raises(OSError, match="4 bytes are more than 3"):
        files.read_bytes(path, 3)
    with path.open("wb") as file:
        file.truncate(2**40)  # a sparse file
    with pytest.raises(OSError, match="bytes are more than"):
        files.read_bytes(path, 100)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, why in (("pipe", "not a regular file"), ("zero", "not a regular file"), (".", "Is a directory"),
                      ("none", "No such file"), ("a\0b", "no file can have this name"),
                      ("\ud800", "no file can have this name"), ("n" * 300, "File name too long")):  # fmt: skip
        with pytest.raises(OSError, match=why) as caught:
            files.read_bytes(tmp_path / name, 100)
        assert caught.value.filename == str(tmp_path / name)


def test_a_file_keeps_its_mode_and_a_new_one_has_that_of_the_umask(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for mode in (0o600, 0o640, 0o444):
        old.write_bytes(b"old")
        old.chmod(mode)
        files.write_whole(old, b"new")
        assert (stat.S_IMODE(old.stat().st_mode), old.read_bytes()) == (mode, b"new")
        old.unlink()
    before = os.umask(0o027)
    try:
        files.write_whole(new, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(new.stat().st_mode) == 0o640


def test_a_link_under_a_foreseeable_name_is_not_followed(tmp_path: Path) -> None:
    """An attacker in a shared folder knows the file's name and our process's number."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in (f".x.json.{os.getpid()}.tmp", ".x.json.tmp", "x.json.tmp"):
        (tmp_path / name).symlink_to(victim)
    files.check_writable(tmp_path / "x.json")
    files.write_whole(tmp_path / "x.json", b"mine")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "x.json").read_bytes() == b"mine" and not (tmp_path / "x.json").is_symlink()
    assert len(os.listdir(tmp_path)) == 5


def test_a_temporary_name_that_is_taken_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".00.tmp").symlink_to(victim)
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "00")
    with pytest.raises(FileExistsError) as caught:
        files.write_whole(tmp_path / "x", b"mine")
    assert caught.value.filename == str(tmp_path / "x")
    assert victim.read_bytes() == b"precious" and (tmp_path / ".00.tmp").is_symlink()


def test_links_devices_and_folders_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("folder", "pipe", "link"):
        for action in (lambda path: files.write_whole(path, b""), files.check_writable):
            with pytest.raises(OSError, match="exists and is not a regular file"):
                action(tmp_path / name)
    for name in ("no/where", "n" * 256, "a\0b"):
        for action in (lambda path: files.write_whole(path, b""), files.check_writable):
            with pytest.raises(OSError) as caught:
                action(tmp_path / name)
            assert caught.value.filename == str(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "pipe"]


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    files.check_writable(path)
    files.write_whole(path, b"x")
    assert os.listdir(tmp_path) == [path.name]


def test_a_full_disk_names_the_file_and_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "x.json"
    path.write_bytes(b"older")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        files.write_whole(path, b"newer")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"older" and os.listdir(tmp_path) == ["x.json"]


def test_content_is_on_the_disk_before_it_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
    files.write_whole(tmp_path / "x", b"1")
    assert calls == ["fsync", "replace"]


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path, contents = tmp_path / "x", [bytes([number]) * 100_000 for number in range(4)]

    def write(content: bytes) -> None:
        for _ in range(30):
            files.write_whole(path, content)
            seen.append(path.read_bytes())

    seen: list[bytes] = []
    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 120 and set(seen) <= set(contents)
    assert os.listdir(tmp_path) == ["x"]


def test_nothing_is_left_behind_when_writing_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(tmp_path / "x", b"1")
    assert os.listdir(tmp_path) == []


def test_values_are_shown_short_on_one_line_and_escaped() -> None:
    huge = 10**5000
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    values = ["x" * 10**6, b"x" * 10**6, "\x1b[2J\n", huge, -huge, [huge], ["x"] * 10**5, {"a": "\0"}, nested]
    for value in values:
        text = show(value)
        assert len(text) <= MAX_SHOWN + 3 and text.isprintable()


def test_text_and_names_are_shown_short_on_one_line_and_escaped() -> None:
    assert plain("a b.toml") == shown_path("a b.toml") == "a b.toml"
    assert plain("\x1b]0;x\x07\n\u202e") == r"\x1b]0;x\x07\n\u202e"
    assert plain("x" * 100) == "x" * MAX_SHOWN + "..."
    assert shown_path("/far" * 100 + "/x.toml").endswith("/far/x.toml")
    assert len(shown_path("/far" * 100)) == MAX_PATH + 3


def test_reading_needs_no_more_memory_than_the_limit(tmp_path: Path) -> None:
    """/dev/zero through a link, and a sparse file of 8 GB, in a process that may have 200 MB beyond what it has."""
    (tmp_path / "zero").symlink_to("/dev/zero")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(8 * 2**30)
    script = (
        "import resource, sys\n"
        "from ple_gym import files\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n        files.read_bytes(name, 2**20)\n"
        "    except OSError as error:\n        print(error.strerror)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "zero", tmp_path / "sparse"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert run.stdout == "not a regular file\n8,589,934,592 bytes are more than 1,048,576\n"


def test_whatever_is_sealed_is_refused_when_a_bit_has_turned_or_bytes_are_missing() -> None:
    content = {"a": [1, 2.5, None], "b": "\u00e9", "c": {"d": True}}
    sealed, document = files.seal("thing, format 1", b"some \n content"), files.seal_json("thing, format 1", content)
    assert files.unseal("thing, format 1", sealed) == b"some \n content"
    assert files.unseal_json("thing, format 1", document) == content
    for unseal, data in ((files.unseal, sealed), (files.unseal_json, document)):
        with pytest.raises((ValueError, KeyError)):
            unseal("thing, format 2", data)
        for place in range(len(data)):
            for damaged in (
                data[:place],
                *(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :] for bit in range(8)),
            ):
                try:
                    found = unseal("thing, format 1", damaged)
                except (ValueError, KeyError, TypeError):
                    continue
                assert unseal is files.unseal_json and found == content  # blanks between the values


def test_an_interrupt_that_comes_when_a_file_has_just_been_written_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def interrupted(*names: str) -> None:
        replace(*names)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(tmp_path / "x", b"new")
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"new"
