"""A W&B server that answers what a run asks, and what wandb wrote to disk, read back."""

from __future__ import annotations

import gzip
import http.server
import json
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def pieces(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format behind a header of 7 bytes, in blocks of 32 KiB."""
    assert content[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # no room for a header: padding
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole one, or the last part
            yield whole
            whole = b""


def items(updates: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}


def _read(file: Path) -> dict[str, list[Any]]:
    from wandb.proto.wandb_internal_pb2 import Record

    kinds: dict[str, list[Any]] = {}
    for piece in pieces(file.read_bytes()):
        record = Record.FromString(piece)
        kind = record.WhichOneof("record_type")
        kinds.setdefault(str(kind), []).append(getattr(record, str(kind)))
    return kinds


@pytest.fixture
def wandb_records() -> Callable[[Path], dict[str, list[Any]]]:
    """All that wandb wrote into a .wandb file, in order, by kind."""
    return _read


@pytest.fixture
def wandb_items() -> Callable[[Any], dict[str, Any]]:
    """What a record updates, by key."""
    return items


class Server(http.server.ThreadingHTTPServer):
    """Answers a run's questions until it is cut off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.cut = False
        self.silent: tuple[str, ...] = ()
        """The methods that are taken and never answered."""
        self.over = threading.Event()
        self.asked: list[tuple[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def cut_off(self) -> None:
        """Close what listens, and answer nothing on connections that are open."""
        self.cut = True
        self.shutdown()
        self.server_close()


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.server.cut:
            self.close_connection = True
            return
        if self.command in self.server.silent:
            self.server.over.wait()
            self.close_connection = True
            return
        answer = json.dumps(self._answer(body) if self.path == "/graphql" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_HEAD = do_PUT = do_POST = _handle  # noqa: N815

    def _answer(self, body: bytes) -> Any:
        question = json.loads(body)
        name, given = question.get("operationName"), question.get("variables") or {}
        self.server.asked.append((name, given))
        if name == "UpsertBucket":
            project = {"id": "p", "name": given.get("project"), "entity": {"id": "e", "name": "someone"}}
            bucket = {"id": "b", "name": given.get("name"), "displayName": given.get("displayName"), "project": project}
            bucket |= {"config": given.get("config"), "description": None, "sweepName": None, "historyLineCount": 0}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.server.url}/upload"} for file in given["files"]]
            return {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}}
        return {"data": {}}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.over.set()
    if not server.cut:
        server.cut_off()
    thread.join()
