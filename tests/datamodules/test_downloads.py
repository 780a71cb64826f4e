"""Downloads from a server of this machine: whole or not at all, whatever goes wrong."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.server
import io
import multiprocessing
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from datamodules import UserError, downloads
from datamodules.downloads import Download, fetch

TEXT = b"the text of a corpus\n" * 1000


def zipped(**members: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return held.getvalue()


def tarred(*members: tuple[str, bytes], link: str | None = None) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        if link is not None:
            entry = tarfile.TarInfo("corpus/train.txt")
            entry.type, entry.linkname = tarfile.SYMTYPE, link
            archive.addfile(entry)
    return held.getvalue()


@dataclass
class Server:
    """What a server gives by path, how much more it promises than it gives, and how often it was asked."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    short: int = 0
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            content = state.files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"") + state.short))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state.address = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        running.shutdown()
        thread.join()


def left(folder: Path) -> list[str]:
    """What lies there, but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def refused(folder: Path, *given: Download) -> str:
    """The one sentence; nothing of the file may be there."""
    with pytest.raises(UserError) as refusal:
        fetch(folder, "The corpus", given)
    sentence = str(refusal.value)
    assert "\n" not in sentence and str(folder) in sentence and "data.init_args.root" in sentence
    assert given[0].address in sentence and left(folder) == []
    return sentence


@pytest.mark.parametrize(
    ("path", "content", "member"),
    [
        ("/plain", TEXT, ""),
        ("/one.gz", gzip.compress(TEXT), ""),
        ("/some.zip", zipped(**{"a/text": TEXT, "other": b"?"}), "a/text"),
        ("/some.tgz", tarred(("./a/text", TEXT), ("other", b"?")), "a/text"),
    ],
)
def test_a_file_is_taken_out_once(server: Server, tmp_path: Path, path: str, content: bytes, member: str) -> None:
    server.files[path] = content
    sums = {"text": hashlib.sha1(TEXT).hexdigest()}
    download = Download(server.address + path, {"text": member}, hashlib.md5(content).hexdigest(), sums)
    for _ in range(2):
        fetch(tmp_path / "corpus", "The corpus", [download])
        assert left(tmp_path / "corpus") == ["text"] and (tmp_path / "corpus/text").read_bytes() == TEXT
    assert server.asked == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "corpus/text").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_path_that_is_not_there(server: Server, tmp_path: Path) -> None:
    assert "404" in refused(tmp_path, Download(f"{server.address}/text", {"text": ""}))


def test_no_server(tmp_path: Path) -> None:
    assert "refused" in refused(tmp_path, Download("http://127.0.0.1:9/text", {"text": ""}))


def test_a_connection_that_ends_early(server: Server, tmp_path: Path) -> None:
    server.files["/text"], server.short = TEXT, 5
    assert "it ended after 21,000 of 21,005 bytes" in refused(
        tmp_path, Download(f"{server.address}/text", {"text": ""})
    )


@pytest.mark.parametrize("which", ["download", "file"])
def test_other_contents(server: Server, tmp_path: Path, which: str) -> None:
    content = server.files["/text.gz"] = gzip.compress(TEXT)
    other = hashlib.sha256(b"other").hexdigest()
    sums = (other, {}) if which == "download" else (None, {"text": other})
    found = hashlib.sha256(content if which == "download" else TEXT).hexdigest()
    said = refused(tmp_path, Download(f"{server.address}/text.gz", {"text": ""}, *sums))
    assert f"its SHA-256 is {found}, not {other}" in said


@pytest.mark.parametrize("path", ["/text.zip", "/text.tgz", "/text.gz"])
@pytest.mark.parametrize("content", [b"", b"<html>moved</html>", "half"])
def test_what_is_no_archive(server: Server, tmp_path: Path, path: str, content: bytes | str) -> None:
    whole = {"/text.zip": zipped(text=TEXT), "/text.tgz": tarred(("text", TEXT)), "/text.gz": gzip.compress(TEXT)}[path]
    server.files[path] = whole[: len(whole) // 2] if isinstance(content, str) else content
    refused(tmp_path, Download(server.address + path, {"text": "text"}))


def test_an_archive_without_the_file(server: Server, tmp_path: Path) -> None:
    server.files["/text.zip"] = zipped(other=TEXT)
    assert "text" in refused(tmp_path, Download(f"{server.address}/text.zip", {"text": "text"}))


def test_all_files_of_an_archive_or_none(server: Server, tmp_path: Path) -> None:
    server.files["/text.zip"] = zipped(train=TEXT)
    refused(tmp_path, Download(f"{server.address}/text.zip", {"train": "train", "test": "test"}))


def test_archives_write_nothing_outside(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    server.files["/evil.tgz"] = tarred(("../evil", TEXT), (str(tmp_path / "evil"), TEXT), link=str(secret))
    server.files["/evil.zip"] = zipped(**{"../evil": TEXT, "corpus/train.txt": TEXT})
    folder = tmp_path / "data"
    refused(folder, Download(f"{server.address}/evil.tgz", {"train.txt": "corpus/train.txt"}))  # a link is no file
    fetch(folder, "The corpus", [Download(f"{server.address}/evil.zip", {"train.txt": "corpus/train.txt"})])
    assert left(folder) == ["train.txt"] and left(tmp_path) == ["data", "secret"]


def test_a_file_that_grows_too_large(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_LARGEST", 20_000)
    server.files["/text.gz"] = gzip.compress(TEXT)
    assert "larger than 20,000 bytes" in refused(tmp_path, Download(f"{server.address}/text.gz", {"text": ""}))


def test_no_space(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/text"] = TEXT

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in refused(tmp_path, Download(f"{server.address}/text", {"text": ""}))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^The corpus is not in .*/file/corpus, and could not be put there"):
        fetch(tmp_path / "file" / "corpus", "The corpus", [Download("http://127.0.0.1:9/text", {"text": ""})])


def test_half_a_file_left_by_a_kill_is_swept_away(server: Server, tmp_path: Path) -> None:
    """It never bears the name of a whole one."""
    server.files["/text"] = TEXT
    (tmp_path / f"{downloads._PART}killed").write_bytes(TEXT[:100])
    fetch(tmp_path, "The corpus", [Download(f"{server.address}/text", {"text": ""})])
    assert left(tmp_path) == ["text"] and (tmp_path / "text").read_bytes() == TEXT


def test_what_others_keep_there_stays(server: Server, tmp_path: Path) -> None:
    """A run folder of somebody else may name any folder for its data, and a link may lie in one."""
    server.files["/corpus.txt"] = TEXT
    folder, others = tmp_path / "data", {"notes": "mine", "data/.part-1": "half of a film"}
    folder.mkdir()
    for name, content in others.items():
        (tmp_path / name).write_text(content)
    (folder / ".lock").symlink_to(tmp_path / "notes")
    fetch(folder, "Text", [Download(f"{server.address}/corpus.txt", {"train.txt": ""})])
    assert left(folder) == [".part-1", "train.txt"]
    assert {name: (tmp_path / name).read_text() for name in others} == others


def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    server.files["/text"] = TEXT * 200
    download = Download(f"{server.address}/text", {"text": ""})
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=fetch, args=(tmp_path, "The corpus", [download])) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert server.asked == ["/text"] and (tmp_path / "text").read_bytes() == TEXT * 200
