"""Download: the real code against a hub on this machine."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minigpt2 import download as chapter
from minigpt2.commands.download import DownloadSettings, download
from minigpt2.data.tokenizer import gpt2_file
from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.model_folders import find_model
from minigpt2.tensors import TENSORS
from minigpt2.weights import load_parameters, save_parameters

CONFIG = GPT2Config(n_positions=8, n_embd=8, n_layer=1, n_head=2)
PARAMETERS = initialise(CONFIG, np.random.default_rng(0))
COMMIT = "0123456789" * 4


class Hub:
    """A folder served as the hub does, with faults on demand."""

    def __init__(self, files):
        self.files = files
        self.cut: dict[str, int] = {}  # file -> after so many bytes the connection breaks, once
        self.dies = False  # whether a break is for good: later requests get an error
        self.dead = False
        self.etag: str | None = "right"  # what it states of every file, if not the right checksum
        self.garbled: set[str] = set()  # files whose contents change on the way, once
        self.sizes: dict[str, int] = {}  # file -> what the hub states, if not the right size
        self.requests: list[tuple[str, str, str | None]] = []
        self.tokens: list[str | None] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, body):
                *_, owner, model, resolve, revision, name = self.path.split("/")
                wanted = self.headers.get("Range")
                hub.requests.append((self.command, name, wanted))
                hub.tokens.append(self.headers.get("Authorization"))
                known = (owner, model, resolve, revision) == (
                    "openai-community", "gpt2", "resolve", "main"
                )  # fmt: skip
                if hub.dead or not known or name not in hub.files:
                    self.send_response(500 if hub.dead else 404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                data = hub.files[name]
                start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
                self.send_response(206 if wanted else 200)
                if wanted:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", str(len(data) - start))
                self.send_header("Accept-Ranges", "bytes")
                if name in hub.sizes:
                    self.send_header("X-Linked-Size", str(hub.sizes[name]))
                self.send_header("X-Repo-Commit", COMMIT)
                if hub.etag != "right":
                    if hub.etag is not None:
                        self.send_header("ETag", hub.etag)
                elif name == TENSORS:
                    self.send_header("X-Linked-Etag", f'"{hashlib.sha256(data).hexdigest()}"')
                    if name not in hub.sizes:
                        self.send_header("X-Linked-Size", str(len(data)))
                    self.send_header("ETag", '"something-else"')
                else:
                    blob = b"blob %d\0" % len(data) + data
                    self.send_header("ETag", f'"{hashlib.sha1(blob).hexdigest()}"')
                self.end_headers()
                if body:
                    self.send(name, data, start)

            def send(self, name, data, start):
                if name in hub.garbled:
                    hub.garbled.discard(name)
                    data = data[:-1] + bytes([data[-1] ^ 1])
                stop = hub.cut.pop(name, len(data))
                self.wfile.write(data[start:stop])
                self.close_connection = stop < len(data)
                hub.dead = hub.dies and stop < len(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=[0.01], daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def fetched(self, name):
        """The byte ranges that were asked for, of one file."""
        return [wanted for verb, file, wanted in self.requests if (verb, file) == ("GET", name)]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that has a small model as gpt2, and this process told to use it."""
    source = tmp_path / "source"
    source.mkdir()
    save_parameters(PARAMETERS, source)
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    files |= {"vocab.json": gpt2_file("encoder.json"), "merges.txt": gpt2_file("vocab.bpe")}
    hub = Hub(files)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)  # of 10 MB
    monkeypatch.chdir(tmp_path)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def test_a_model_is_fetched_and_found_by_its_name(hub, tmp_path, capsys):
    folder = download(DownloadSettings("gpt2"))
    assert sorted(path.name for path in folder.iterdir()) == sorted(chapter.FILES)
    assert find_model("gpt2").resolve() == (tmp_path / "weights/gpt2").resolve()
    np.testing.assert_array_equal(load_parameters(find_model("gpt2")).flat, PARAMETERS.flat)
    assert "is in weights/gpt2" in capsys.readouterr().out
    assert list((tmp_path / "weights").iterdir()) == [tmp_path / "weights/gpt2"]


def test_names_with_a_prefix_are_taken(hub, tmp_path):
    stored = load_file(tmp_path / "source" / TENSORS)
    save_file({f"transformer.{n}": t for n, t in stored.items()}, tmp_path / "prefixed")
    hub.files[TENSORS] = (tmp_path / "prefixed").read_bytes()
    folder = download(DownloadSettings("gpt2"))
    np.testing.assert_array_equal(load_parameters(folder).flat, PARAMETERS.flat)


def test_what_is_there_is_not_fetched_again(hub, capsys):
    download(DownloadSettings("gpt2"))
    hub.requests.clear()
    download(DownloadSettings("gpt2"))
    assert not hub.requests and "already" in capsys.readouterr().out


def test_a_connection_that_breaks_is_taken_up_again(hub):
    hub.cut[TENSORS] = 100_000
    folder = download(DownloadSettings("gpt2"))
    assert hub.fetched(TENSORS) == [None, "bytes=100000-"]
    np.testing.assert_array_equal(load_parameters(folder).flat, PARAMETERS.flat)


def test_an_interrupted_download_continues_where_it_stopped(hub, tmp_path):
    hub.cut[TENSORS], hub.dies = 100_000, True
    with pytest.raises(
        UserError, match=r"cannot be downloaded.*run the same command again to continue"
    ):
        download(DownloadSettings("gpt2"))
    assert not (tmp_path / "weights/gpt2").exists()
    hub.requests.clear()
    hub.dead = False
    folder = download(DownloadSettings("gpt2"))
    assert hub.fetched(TENSORS) == ["bytes=100000-"]
    assert not hub.fetched("vocab.json")
    np.testing.assert_array_equal(load_parameters(folder).flat, PARAMETERS.flat)


@pytest.mark.parametrize(
    "etag", [None, "", '"md5-of-another-server"', '"' + 32 * "a" + '"', 'W/"1-2"']
)
def test_a_hub_without_checksums_is_told_and_no_file_is_called_damaged(hub, tmp_path, etag):
    hub.etag = etag
    for _ in range(2):
        with pytest.raises(UserError) as refused:
            download(DownloadSettings("gpt2"))
        text = str(refused.value)
        assert "states no checksum" in text and "HF_ENDPOINT" in text and "damaged" not in text
    assert {method for method, *_ in hub.requests} == {"HEAD"}  # nothing was fetched in vain


def test_a_damaged_file_is_noticed_deleted_and_fetched_again(hub, tmp_path):
    for name in ("merges.txt", TENSORS):
        hub.garbled.add(name)
        with pytest.raises(UserError, match=f"{name} arrived damaged and was deleted"):
            download(DownloadSettings("gpt2"))
        assert not (tmp_path / "weights/gpt2").exists()
    folder = download(DownloadSettings("gpt2"))
    np.testing.assert_array_equal(load_parameters(folder).flat, PARAMETERS.flat)


@pytest.mark.parametrize("name", ["merges.txt", TENSORS])
@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (lambda size: size - 1, "it sends more than the"),
        (lambda size: 1, "it sends more than the 1 byte that it states"),
        (lambda size: size + 1, "cannot be downloaded"),
        (lambda size: 60 << 30, "states 64,424,509,440 bytes, more than any official file"),
        (lambda size: -5, "it sends more than"),
    ],
)
def test_a_hub_that_lies_about_a_size_is_told_and_tried_again(hub, tmp_path, name, stated, words):
    hub.sizes[name] = stated(len(hub.files[name]))
    for _ in range(2):  # what is left of the first try is in nobody's way
        with pytest.raises(UserError) as refused:
            download(DownloadSettings("gpt2"))
        text = str(refused.value)
        assert f"{name} " in text and "\n" not in text
        assert words in text or "arrived damaged and was deleted" in text
    assert not (tmp_path / "weights/gpt2").exists()
    hub.sizes.clear()
    folder = download(DownloadSettings("gpt2"))
    np.testing.assert_array_equal(load_parameters(folder).flat, PARAMETERS.flat)


def test_a_part_of_another_file_is_taken_for_no_beginning(hub, tmp_path):
    part = tmp_path / "weights/.gpt2.download"
    part.mkdir(parents=True)
    (part / f"{TENSORS}.part").write_bytes(b"x" * (len(hub.files[TENSORS]) + 1))
    folder = download(DownloadSettings("gpt2"))
    assert hub.fetched(TENSORS) == [None]
    np.testing.assert_array_equal(load_parameters(folder).flat, PARAMETERS.flat)


def test_no_token_is_sent(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download(DownloadSettings("gpt2"))
    assert set(hub.tokens) == {None}


def test_a_file_that_the_hub_has_not_is_told(hub):
    del hub.files["merges.txt"]
    with pytest.raises(UserError, match=r"merges\.txt cannot be downloaded"):
        download(DownloadSettings("gpt2"))


def test_a_hub_that_is_not_there_is_told(hub):
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(UserError, match="cannot be downloaded"):
        download(DownloadSettings("gpt2"))


def test_offline_is_honoured(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        download(DownloadSettings("gpt2"))
    assert not hub.requests


def test_a_model_of_another_shape_than_its_config_is_refused(hub):
    config = json.loads(hub.files["config.json"])
    hub.files["config.json"] = json.dumps({**config, "n_layer": 2}).encode()
    with pytest.raises(UserError, match=r"has 1 layer, but config\.json asks for 2"):
        download(DownloadSettings("gpt2"))


def test_an_unknown_name_and_a_folder_in_the_way_are_told(hub, tmp_path):
    with pytest.raises(
        UserError, match="no official weights 'gpt-2': choose one of gpt2, gpt2-medium"
    ):
        DownloadSettings("gpt-2")
    (tmp_path / "weights/gpt2").mkdir(parents=True)
    with pytest.raises(UserError, match="exists and is not a model"):
        download(DownloadSettings("gpt2"))
