"""`FrameDataset`: frames of videos as tensors, for PyTorch's data loaders. Needs `torch` to be installed.

    from fusefs.torch import FrameDataset

    frames = FrameDataset("/mnt/data", only=["train"], recipe="npy,scale=224x224")
    loader = DataLoader(frames, batch_size=32, shuffle=True, num_workers=8)
    for pictures, paths, numbers in loader: ...

The recipe is that of the view `frames` (`fusefs mount --help`). Without a mount, of a version that
`fusefs.open` gave: `FrameDataset(fusefs.open("data", rev="v1.0"))`.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from fusefs.filesystem import FusefsFileSystem
from fusefs.frame_sources import open_frames
from fusefs.python_errors import python_errors
from store.media.recipe import parse_frames

Sample = tuple[Any, str, int]


class FrameDataset(Dataset[Sample]):
    """Every selected frame of the videos, by path and number: (tensor, path in the version, frame).

    Tensors are of bytes, colours × height × width; `transform` makes something else of them. Workers of a
    data loader may have it forked or pickled.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | FusefsFileSystem,
        *,
        only: Sequence[str] | str = (),
        recipe: str = "npy",
        transform: Callable[[torch.Tensor], Any] | None = None,
    ) -> None:
        """`source` is a mount's directory or an open version, `only` are files, directories and patterns.

        Makes the indexes of all those videos, and no frame. Raises ValueError for what is no recipe, no mount
        or no video, and OSError.
        """
        patterns = [only] if isinstance(only, str) else list(only)
        with python_errors(recipe):
            parsed = parse_frames(recipe)
        self._source = open_frames(source, parsed)
        self._is_array = parsed.encoding.form == "npy"
        self._videos = self._source.videos(patterns)
        self._ends = list(accumulate(len(numbers) for _, numbers in self._videos))
        self._transform = transform

    @property
    def videos(self) -> Sequence[tuple[str, range]]:
        """The paths of the videos in order, each with the numbers of its frames."""
        return self._videos

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, place: int) -> Sample:
        if place < 0:
            place += len(self)
        if not 0 <= place < len(self):
            raise IndexError(place)
        video = bisect_right(self._ends, place)
        path, numbers = self._videos[video]
        number = numbers[place - (self._ends[video] - len(numbers))]
        return self.frame(path, number), path, number

    def frame(self, path: str, number: int) -> Any:
        """A frame by its video's path and its number there, transformed."""
        tensor = self._decode(self._source.read(path, number))
        return tensor if self._transform is None else self._transform(tensor)

    def _decode(self, data: bytes) -> torch.Tensor:
        if self._is_array:
            array = np.load(io.BytesIO(data), allow_pickle=False)
        else:
            with Image.open(io.BytesIO(data)) as image:
                array = np.array(image)
        if array.ndim == 2:  # gray
            array = array[..., None]
        return torch.from_numpy(array).permute(2, 0, 1).contiguous()
