"""`fusefs media`: what videos and images a version has, and a sheet of them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusefs.contact_sheet import CELL, MOST_HEIGHT, Section, draw_sheet
from fusefs.sheet_pictures import spread
from tests.cli.conftest import Command
from tests.cli.media_dataset import IMAGES, image, media_dataset
from tests.conftest import SmallDataset, small_dataset
from tests.store.media.videos import MAKERS


@pytest.fixture
def media(tmp_path: Path) -> SmallDataset:
    return media_dataset(tmp_path)


def described(command: Command, dataset: SmallDataset, *words: str, status: int = 0) -> dict[str, Any]:
    done = command("media", "--cache", dataset.cache, dataset.oid, "--json", *words)
    assert done.status == status, done.stderr
    return {one["path"]: one for one in done.json}


def test_videos_and_folders_of_images_are_described(command: Command, media: SmallDataset) -> None:
    found = described(command, media)
    assert list(found) == ["clips/a.mp4", "clips/b.mkv", "clips/turned.mp4", "pictures"]
    video = found["clips/a.mp4"]
    assert (video["type"], video["codec"], video["width"], video["height"]) == ("video", "h264", 128, 72)
    assert (video["frames"], video["seconds"], video["rate"]) == (100, 4.0, 25.0)
    assert video["bytes"] == len(media.files["clips/a.mp4"])
    assert video["gop"] == {"median": 24, "longest": 24}
    assert video["index"] == "sample tables"
    assert found["clips/b.mkv"]["index"] == "demuxing"
    turned = found["clips/turned.mp4"]
    assert (turned["width"], turned["height"], turned["rotation"]) == (72, 128, 90)
    images = found["pictures"]
    assert (images["type"], images["images"], images["codec"]) == ("images", IMAGES, "jpeg")
    assert (images["width"], images["height"]) == (128, 72)
    total = sum(len(data) for path, data in media.files.items() if path.startswith("pictures/"))
    assert images["bytes"] == total


def test_each_image_for_itself_and_a_part(command: Command, media: SmallDataset) -> None:
    found = described(command, media, "--each", "--only", "pictures/1*.jpg")
    assert list(found) == ["pictures/1.jpg", "pictures/10.jpg", "pictures/11.jpg"]
    assert {one["type"] for one in found.values()} == {"image"}


def test_lines_for_people(command: Command, media: SmallDataset) -> None:
    done = command("media", "--cache", media.cache, media.oid)
    assert done.status == 0
    video = done.lines[0]
    for words in ("clips/a.mp4", "100 frames", "4 s", "25/s", "h264 128x72", "key every 24", "sample tables"):
        assert words in video
    assert done.lines[-1].startswith(f"3 videos (230 frames, 9.2 s), {IMAGES} images, ")


def test_what_is_no_video_is_told_of_and_stops_nothing(command: Command, tmp_path: Path) -> None:
    found = described(command, media_dataset(tmp_path, bad=True), status=1)
    assert "no video that can be read" in found["clips/text.mp4"]["error"]
    assert found["clips/turned.mp4"]["error"] is None


def test_what_is_missing_is_told_of(command: Command, media: SmallDataset) -> None:
    for path in (media.cache / "files/md5").rglob("*"):
        if path.is_file() and path.read_bytes() == media.files["clips/b.mkv"]:
            path.unlink()
    found = described(command, media, status=1)
    assert "dvc fetch" in found["clips/b.mkv"]["error"]
    assert found["clips/a.mp4"]["frames"] == 100


def test_of_a_remote_only_the_index_is_fetched(command: Command, tmp_path: Path) -> None:
    padding = 24 << 20
    film = MAKERS["b-frames"][1]() + struct.pack(">I4s", padding, b"free") + bytes(padding - 8)
    far = small_dataset(tmp_path / "remote", {"film.mp4": film})
    cache = tmp_path / "cache"
    done = command("media", "--cache", cache, "--remote", far.cache, far.oid, "--json")
    (video,) = done.json
    assert (video["frames"], video["bytes"]) == (100, len(film))
    taken = sum(path.stat().st_blocks * 512 for path in cache.rglob("*") if path.is_file())
    assert 0 < taken < padding / 4


def test_names_are_no_commands_for_a_terminal(command: Command, tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "cache", {"\x1b[31mred.jpg": image(1)})
    sheet = tmp_path / "sheet.png"
    done = command("media", "--cache", dataset.cache, dataset.oid, "--each", "--sheet", sheet)
    assert done.status == 0
    assert "\x1b" not in done.stdout
    assert sheet.exists()


def test_what_is_made_is_told(command: Command, media: SmallDataset) -> None:
    place = ("--cache", media.cache, media.oid)
    assert described(command, media)["clips/a.mp4"]["made"] == {}
    wanted = described(command, media, "--view", "frames:jpg")["clips/a.mp4"]["made"]["frames:jpg"]
    assert wanted["here"] == 0 < wanted["of"]
    assert command("materialize", *place, "--view", "frames:jpg", "--only", "clips/a.mp4").status == 0
    found = described(command, media)
    assert found["clips/a.mp4"]["made"] == {"frames:jpg": {"here": wanted["of"], "of": wanted["of"]}}
    assert found["clips/b.mkv"]["made"] == {}
    kept = [path for path in (media.cache / "fusefs/derived").rglob("*") if path.is_file()]
    largest = max(kept, key=lambda path: path.stat().st_size)
    largest.chmod(0o644)
    largest.write_bytes(largest.read_bytes()[:-1])  # a damaged product is none
    made = described(command, media, "--view", "frames:jpg")["clips/a.mp4"]["made"]["frames:jpg"]
    assert made["here"] == wanted["of"] - 1


def test_a_list_of_views_that_others_have_written_is_a_hint(command: Command, media: SmallDataset) -> None:
    (media.cache / "fusefs").mkdir()
    (media.cache / "fusefs/views").write_bytes(
        b"frames:gif\n\xff\xfe\nframes:jpg\nshards:5\n" + b"x" * 100_000
    )
    assert described(command, media)["clips/a.mp4"]["made"] == {}


def test_a_sheet_shows_everything(command: Command, media: SmallDataset, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert command("media", "--cache", media.cache, media.oid, "--sheet", sheet).status == 0
    with Image.open(sheet) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width == 8 * (CELL[0] + 4) + 4
        pixels = np.asarray(drawn)
    # Four sections; the first picture of each begins behind its label.
    for number in range(4):
        top = 4 + number * (20 + CELL[1] + 4) + 20
        cell = pixels[top : top + CELL[1], 4 : 4 + CELL[0]]
        assert cell.std() > 20
    assert [path.name for path in tmp_path.iterdir() if "sheet" in path.name] == ["sheet.png"]


@pytest.mark.parametrize("name", ["there.png", "sheet.jpg", "nowhere/sheet.png"])
def test_a_sheet_that_cannot_be_is_refused_at_once(
    command: Command, media: SmallDataset, tmp_path: Path, name: str
) -> None:
    (tmp_path / "there.png").write_text("somebody's")
    done = command("media", "--cache", media.cache, media.oid, "--sheet", tmp_path / name)
    assert (done.status, done.stdout) == (1, "")
    assert name.rpartition("/")[0] in done.stderr
    assert (tmp_path / "there.png").read_text() == "somebody's"


def test_a_sheet_is_bounded() -> None:
    sections = [Section(f"{number} " + "long " * 1000, [b""] * 8) for number in range(300)]
    assert draw_sheet(sections).height == MOST_HEIGHT


def test_frames_are_spread_evenly() -> None:
    assert spread(100, 4) == [12, 37, 62, 87]
    assert spread(3, 8) == [0, 1, 2]
    assert spread(0, 8) == []


def test_wrong_usage_is_named(
    command: Command, media: SmallDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command("media", "--cache", media.cache, media.oid, "--view", "frames:gif")
    assert ended.value.code == 2
    assert "spelt" in capsys.readouterr().err
