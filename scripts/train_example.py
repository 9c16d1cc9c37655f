"""An example: a small network learns what is in a version's pictures, read from a mount.

    fusefs mount data /mnt/data
    python scripts/train_example.py frames /mnt/data        videos:  CLASS/anything.mp4
    python scripts/train_example.py shards /mnt/data        images:  CLASS/anything.jpg

Nothing is extracted or packed beforehand: frames and tar shards are views of the mounted version. The name of
the topmost directory is what a picture shows. Needs torch, and webdataset for shards.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

SIDE = 32


def frames_loader(mountpoint: Path, classes: Sequence[str], options: argparse.Namespace) -> DataLoader[Any]:
    """Shuffled frames of all videos; each is made once and then read from the cache in every epoch."""
    from fusefs.torch import FrameDataset

    dataset = FrameDataset(mountpoint, recipe=f"npy,scale={SIDE}x{SIDE}")

    def collate(samples: list[tuple[torch.Tensor, str, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        pictures = torch.stack([picture for picture, _, _ in samples]).float() / 255
        return pictures, torch.tensor([classes.index(path.split("/")[0]) for _, path, _ in samples])

    return DataLoader(dataset, options.batch, shuffle=True, num_workers=options.workers, collate_fn=collate)


def shards_loader(mountpoint: Path, classes: Sequence[str], options: argparse.Namespace) -> DataLoader[Any]:
    """Images from tar shards of 64 samples in a shuffled order; no tar file is ever made."""
    import webdataset

    directory = mountpoint / ".fusefs/shards/64,shuffle=1"
    urls = sorted(str(path) for path in directory.glob("*.tar"))
    dataset = webdataset.WebDataset(urls, shardshuffle=False)
    return DataLoader(
        dataset.map(partial(decode_sample, classes)), options.batch, num_workers=options.workers
    )


def decode_sample(classes: Sequence[str], sample: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """A picture and its class."""
    image = Image.open(io.BytesIO(sample["jpg"])).convert("RGB").resize((SIDE, SIDE))
    picture = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return picture, classes.index(sample["__key__"].split("/")[0])


def train(loader: DataLoader[Any], classes: int, epochs: int) -> Iterator[tuple[int, float, float]]:
    """Learn; yields for each epoch the number of pictures, the mean loss and how many were told right."""
    torch.manual_seed(1)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)),
    )
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(epochs):
        seen, lost, right = 0, 0.0, 0
        for pictures, labels in loader:
            told = model(pictures)
            loss = nn.functional.cross_entropy(told, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(labels)
            lost += float(loss.detach()) * len(labels)
            right += int((told.argmax(1) == labels).sum())
        yield seen, lost / max(seen, 1), right / max(seen, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("view", choices=["frames", "shards"])
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    classes = sorted(entry.name for entry in options.mountpoint.iterdir() if entry.is_dir())
    make = frames_loader if options.view == "frames" else shards_loader
    loader = make(options.mountpoint, classes, options)
    for epoch, (seen, loss, right) in enumerate(train(loader, len(classes), options.epochs)):
        print(f"epoch {epoch}: {seen} pictures, loss {loss:.3f}, {right:.0%} right", flush=True)


if __name__ == "__main__":
    main()
