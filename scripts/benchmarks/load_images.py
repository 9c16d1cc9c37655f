"""A program: goes through images as a training job does and prints nanoseconds, images and a sum.

    load_images.py WORKERS BATCH EPOCHS LIST

LIST holds paths of JPEG files, each ended by a NUL. PyTorch's `DataLoader` takes them in this order; its
workers open, decode and stack them. Prints a line for each epoch. Workers are started by the last files,
in a batch that is not counted. The sum is that of all pixels: who reads a wrong byte has another.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset


class Images(Dataset[torch.Tensor]):  # type: ignore[misc]
    """Images by number, as tensors of height, width and colour."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        with Image.open(self._paths[number]) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))


class Epochs:
    """The numbers of the last images, which start the workers, and then of all in order, again and again."""

    def __init__(self, images: int, first: int) -> None:
        self._numbers = [range(images), range(images - first, images)]

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers.pop() if len(self._numbers) > 1 else self._numbers[0])


def main() -> None:
    workers, batch, epochs = map(int, sys.argv[1:4])
    paths = [os.fsdecode(path) for path in Path(sys.argv[4]).read_bytes().split(b"\0")[:-1]]
    loader: DataLoader[Any] = DataLoader(
        Images(paths),
        batch,
        sampler=Epochs(len(paths), workers),
        num_workers=workers,
        persistent_workers=True,
    )
    for epoch in range(epochs + 1):
        start = time.monotonic_ns()
        images = total = 0
        for pictures in loader:
            images += len(pictures)
            total += int(pictures.sum())
        if epoch:
            print(time.monotonic_ns() - start, images, total, flush=True)


if __name__ == "__main__":
    main()
