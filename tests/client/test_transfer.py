import io
import os
import tempfile
import threading
import zipfile
from pathlib import Path

import pytest
import torch

from stateroom import (
    Client,
    DigestMismatch,
    InvalidRequest,
    ServerError,
    ServerUnavailable,
    UnexpectedAnswer,
)
from stateroom._digest import Hasher
from stateroom._download.whole_file import check_records
from tests.client.conftest import Answer, Seen, StartScripted, described, in_turn

BODY = bytes(range(256)) * 4096


def digest(data: bytes) -> str:
    hasher = Hasher()
    hasher.update(data)
    return hasher.digest()


KNOWN = described(digest=digest(BODY), bytes=len(BODY))


class Served:
    """BODY as a checkpoint's file, lost on the way after each of ``cuts`` bytes; ``etags`` one an answer."""

    def __init__(self, *cuts: int, etags: list[str] | None = None, ranges: bool = True) -> None:
        self.cuts = list(cuts)
        self.etags = etags or ['"e"']
        self.ranges = ranges

    def __call__(self, request: Seen) -> Answer:
        if request.path.endswith("/checkpoints/latest"):
            return KNOWN
        etag = self.etags.pop(0) if len(self.etags) > 1 else self.etags[0]
        cut = self.cuts.pop(0) if self.cuts else None
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        if not start or not self.ranges or request.headers["If-Range"] != etag:
            return Answer(200, BODY, {"ETag": etag}, cut=cut)
        headers = {"ETag": etag, "Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"}
        return Answer(206, BODY[start:], headers, cut=cut)


def asked_ranges(seen: list[Seen]) -> list[str | None]:
    return [request.headers.get("Range") for request in seen[1:]]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(scripted: StartScripted, tmp_path: Path) -> None:
    server = scripted(Served(100_000, 200_000, 0))
    path = Client(server.url, retries=2).model("a/b").download("latest", tmp_path / "out.pt")
    assert path.read_bytes() == BODY
    assert asked_ranges(server.seen) == [None, "bytes=100000-", "bytes=300000-", "bytes=300000-"]


@pytest.mark.parametrize("served", [Served(100_000, etags=['"e"', '"f"']), Served(100_000, ranges=False)])
def test_a_body_that_is_another_one_by_now_is_fetched_from_its_start(
    served: Served, scripted: StartScripted, tmp_path: Path
) -> None:
    server = scripted(served)
    assert Client(server.url).model("a/b").download("latest", tmp_path / "out.pt").read_bytes() == BODY
    assert asked_ranges(server.seen) == [None, "bytes=100000-"]


def test_a_weak_etag_is_not_resumed_from(scripted: StartScripted, tmp_path: Path) -> None:
    server = scripted(Served(100_000, etags=['W/"e"']))
    assert Client(server.url).model("a/b").download("latest", tmp_path / "out.pt").read_bytes() == BODY
    assert asked_ranges(server.seen) == [None, None]


def test_a_transfer_that_gets_no_further_is_given_up(scripted: StartScripted, tmp_path: Path) -> None:
    server = scripted(Served(*[100_000] * 50, etags=['W/"e"']))
    with pytest.raises(ServerUnavailable):
        Client(server.url, retries=2).model("a/b").download("latest", tmp_path / "out.pt")
    assert len(asked_ranges(server.seen)) == 3
    assert list(tmp_path.iterdir()) == []


def test_damaged_bytes_never_get_the_files_name(scripted: StartScripted, tmp_path: Path) -> None:
    (tmp_path / "out.pt").write_bytes(b"the old one")
    damaged = BODY[:1000] + b"x" + BODY[1001:]
    model = Client(scripted(in_turn(KNOWN, Answer(body=damaged))).url).model("a/b")
    with pytest.raises(DigestMismatch):
        model.download("latest", tmp_path / "out.pt")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out.pt", b"the old one")]


def test_without_verify_bytes_are_taken_as_they_come(scripted: StartScripted, tmp_path: Path) -> None:
    model = Client(scripted(in_turn(KNOWN, Answer(body=b"other"))).url, verify=False).model("a/b")
    assert model.download("latest", tmp_path / "out.pt").read_bytes() == b"other"


def test_a_folder_as_the_path_gets_a_file_named_after_the_checkpoint(scripted: StartScripted, tmp_path: Path) -> None:
    path = Client(scripted(Served()).url).model("a/b").download("latest", tmp_path)
    assert path == tmp_path / "b-v1.pt"
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("said", [{"model": "a/../../evil"}, {"version": "/../../evil"}, {"version": "\\evil"}])
def test_a_server_does_not_choose_a_downloads_folder(
    said: dict[str, str], scripted: StartScripted, tmp_path: Path
) -> None:
    known = described(digest=digest(BODY), bytes=len(BODY), **said)
    (tmp_path / "in").mkdir()
    with pytest.raises((InvalidRequest, UnexpectedAnswer)):
        Client(scripted(in_turn(known, Answer(body=BODY))).url).model("a/b").download("latest", tmp_path / "in")
    assert [path.name for path in tmp_path.rglob("*")] == ["in"]


def test_a_downloaded_file_has_the_permissions_of_any_new_file(scripted: StartScripted, tmp_path: Path) -> None:
    path = Client(scripted(Served()).url).model("a/b").download("latest", tmp_path / "out.pt")
    (tmp_path / "any").touch()
    assert path.stat().st_mode == (tmp_path / "any").stat().st_mode


@pytest.mark.parametrize("map_location", [{"cuda:0": "cpu"}, lambda storage, _: storage, 3])
def test_a_download_takes_a_device_and_nothing_else(map_location: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="device"):
        Client("http://127.0.0.1:9").model("a/b").download(1, tmp_path / "out.pt", map_location)


def test_an_upload_sends_the_files_length_and_no_chunks(scripted: StartScripted, tmp_path: Path) -> None:
    server = scripted(in_turn(KNOWN))
    (tmp_path / "model.pt").write_bytes(BODY)
    Client(server.url).model("a/b").upload(tmp_path / "model.pt")
    headers = {name.lower(): value for name, value in server.seen[0].headers.items()}
    assert headers["content-length"] == str(len(BODY))
    assert "transfer-encoding" not in headers
    assert server.seen[0].body == BODY


def test_a_server_that_stored_other_bytes_is_found_out(scripted: StartScripted) -> None:
    model = Client(scripted(in_turn(described(digest=digest(b"other")))).url).model("a/b")
    with pytest.raises(DigestMismatch, match="was sent"):
        model.upload(io.BytesIO(BODY))


class Changing(io.BytesIO):
    """A file that is another size by the time it is read."""

    def __init__(self, change: int) -> None:
        super().__init__(BODY)
        self.change = change

    def read(self, size: int | None = -1) -> bytes:
        if self.change:
            self.truncate(len(BODY) + min(self.change, 0))
            here = self.tell()
            self.seek(0, os.SEEK_END)
            self.write(bytes(max(self.change, 0)))
            self.seek(here)
            self.change = 0
        return super().read(size)


@pytest.mark.parametrize("change", [-1, 1, -len(BODY)])
def test_a_file_that_changes_while_it_is_sent_is_no_upload(change: int, scripted: StartScripted) -> None:
    model = Client(scripted(in_turn(KNOWN)).url, retries=0).model("a/b")
    with pytest.raises(InvalidRequest, match="changed"):
        model.upload(Changing(change))


def test_a_file_opened_as_text_is_refused(scripted: StartScripted) -> None:
    with pytest.raises(InvalidRequest, match="'rb'"):
        Client(scripted(in_turn(KNOWN)).url).model("a/b").upload(io.StringIO("text"))  # type: ignore[arg-type]


def test_a_missing_file_is_pythons_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Client("http://127.0.0.1:9").model("a/b").upload(tmp_path / "none.pt")


def test_progress_hears_of_every_byte(scripted: StartScripted, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int | None]] = []
    lock = threading.Lock()

    def progress(label: str, done: int, total: int | None) -> None:
        with lock:
            heard.append((label, done, total))

    server = scripted(Served(300_000))
    model = Client(server.url, progress=progress).model("a/b")
    model.download("latest", tmp_path / "out.pt")
    assert heard[-1] == ("a/b@1", len(BODY), len(BODY))
    assert [done for _, done, _ in heard] == sorted(done for _, done, _ in heard)


@pytest.mark.parametrize("said", ["bytes 99999-1048575/1048576", "bytes 0-1048575/1048576", "items 1-2/3", None])
def test_a_part_that_begins_elsewhere_is_not_taken_for_the_rest(
    said: str | None, scripted: StartScripted, tmp_path: Path
) -> None:
    headers = {"ETag": '"e"'} | ({"Content-Range": said} if said else {})
    answers = in_turn(KNOWN, Answer(200, BODY, headers={"ETag": '"e"'}, cut=100_000), Answer(206, BODY, headers))
    model = Client(scripted(answers).url, verify=False).model("a/b")
    with pytest.raises(ServerError, match="from byte 100000 on"):
        model.download("latest", tmp_path / "out.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_nobody_asked_for_is_not_taken_for_the_whole(scripted: StartScripted, tmp_path: Path) -> None:
    part = Answer(206, BODY[:100], {"Content-Range": f"bytes 0-99/{len(BODY)}"})
    with pytest.raises(ServerError, match="bytes 0-99"):
        Client(scripted(in_turn(KNOWN, part)).url, verify=False).model("a/b").download("latest", tmp_path / "out.pt")


def zipped(data: bytes) -> bytearray:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data/0", data)
    return bytearray(file.getvalue())


def test_a_record_is_checked_against_its_checksum() -> None:
    whole = zipped(BODY)
    check_records(io.BytesIO(whole))
    for damaged in (whole[:1000] + b"x" + whole[1001:], whole[:-30], bytearray()):
        with pytest.raises(DigestMismatch, match="damaged"):
            check_records(io.BytesIO(damaged))


def test_a_flipped_bit_is_a_digest_mismatch_and_no_other_error(client: Client, model_name: str) -> None:
    checkpoint = client.model(model_name).save({"w": torch.ones(3)}, rank_zero_only=False)
    path = f"/v1/models/{checkpoint.model}/checkpoints/{checkpoint.version}/state_dict"
    whole = bytearray(client._http.send("GET", path).content)
    directory = whole.index(b"PK\1\2")
    found = 0
    for bit in [*range(0, 8 * directory, 37), *range(8 * directory, 8 * len(whole))]:
        whole[bit // 8] ^= 1 << bit % 8
        with tempfile.TemporaryFile() as file:
            file.write(whole)
            try:
                check_records(file)
            except DigestMismatch:
                found += 1
        whole[bit // 8] ^= 1 << bit % 8
    assert found > 1000
