"""Batches for training without hidden state: what epoch e holds at any place follows from the seed alone.

So training can stop anywhere and go on with exactly the batches it would have seen, whatever the number of workers, and
several processes together see the batches of one (notebook 06).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from yolonas_lab.common import progress
from yolonas_lab.data.augment import Augmentation, LabeledImage, Samples, augment
from yolonas_lab.data.coco import Batch, Sample, Targets

_ORDER, _PIXELS = 0, 1  # two streams of random numbers that do not meet
_STRIDE = 32  # px, the coarsest of the network


class Loader:
    """Batches of augmented images of image_size px: `len(loader)` per epoch, `loader.batches(epoch)`.

    batch_size counts the images of one process; with world_size processes, step t takes batch_size * world_size images
    and process `rank` gets its part of them, in order. drop_last leaves out the images of an epoch that do not fill a
    batch; without it the last batch is smaller. workers processes prepare batches ahead (0: in this process); the
    batches are the same bit for bit. cache keeps all decoded images in memory, read once in the beginning.
    Raises ValueError for an empty data set and for settings that make no batch.
    """

    def __init__(
        self,
        dataset: Samples,
        batch_size: int,
        image_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        shuffle: bool = True,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
        cache: bool = False,
    ) -> None:
        self.dataset, self.batch_size, self.image_size = dataset, batch_size, image_size
        self.augmentation = Augmentation.none() if augmentation is None else augmentation
        self.seed, self.shuffle, self.workers, self.cache = seed, shuffle, workers, cache
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last
        self._cached: list[Sample] | None = None
        self._check()

    def _check(self) -> None:
        if len(self.dataset) == 0:
            raise ValueError("the data set is empty: there are no images to make batches of.")
        for name, lowest in (("batch_size", 1), ("world_size", 1), ("workers", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise ValueError(f"{name} is {value!r}: give a whole number of at least {lowest}.")
        if self.image_size < _STRIDE or self.image_size % _STRIDE:
            raise ValueError(f"image_size is {self.image_size}: give a multiple of {_STRIDE} px.")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank is {self.rank}, but must lie in 0 … {self.world_size - 1} (world_size - 1).")
        if not self.drop_last and self.world_size > 1:
            raise ValueError("drop_last=False could leave a process without images: use it with world_size=1 only.")
        if len(self) == 0:
            raise ValueError(
                f"the data set has {len(self.dataset)} images, too few for one batch of "
                f"{self.batch_size * self.world_size}: use a smaller batch_size or drop_last=False."
            )

    def __len__(self) -> int:
        """Batches per epoch, the same for every rank."""
        together = self.batch_size * self.world_size
        return len(self.dataset) // together if self.drop_last else -(-len(self.dataset) // together)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (0, 1, …) from batch `start` on.

        Raises ValueError or FileNotFoundError naming the image that cannot be read, whatever the number of workers.
        """
        if epoch < 0 or not 0 <= start <= len(self):
            raise ValueError(f"there is no batch {start} of epoch {epoch}: an epoch has batches 0 … {len(self) - 1}.")
        if self.cache and self._cached is None:
            self._cached = [self.dataset[i] for i in progress(range(len(self.dataset)), "reading images", "image")]
        packed = _Epoch(self, epoch)
        numbers = range(start, len(self))
        return map(_unpack, _ahead(packed, numbers, self.workers) if self.workers else map(packed.__getitem__, numbers))

    def order(self, epoch: int) -> np.ndarray:
        """Which image of the data set stands at each place of an epoch: (images,) int64, the same for every rank."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self.dataset))

    def places(self, number: int) -> slice:
        """The places of an epoch that batch `number` takes on this rank."""
        first = (number * self.world_size + self.rank) * self.batch_size
        return slice(first, first + self.batch_size)

    def example(self, epoch: int, index: int) -> LabeledImage:
        """Image `index` of the data set as it is augmented in an epoch, before it becomes part of a batch."""
        rng = np.random.default_rng([_PIXELS, self.seed, epoch, index])
        source = self.dataset if self._cached is None else self._cached
        return augment(source[index], self.augmentation, self.image_size, rng, source)

    def image_id(self, index: int) -> int:
        """The data set's own id of image `index`."""
        if self._cached is not None:
            return self._cached[index].image_id
        ids = getattr(self.dataset, "image_ids", None)
        return self.dataset[index].image_id if ids is None else ids[index]


class _Packed(NamedTuple):
    """A batch as it travels from a worker: one tensor, the rest small arrays."""

    images: Tensor  # (b, 3, s, s) float32
    boxes: list[np.ndarray]
    labels: list[np.ndarray]
    weights: list[np.ndarray]
    image_ids: list[int]


class _Epoch(torch.utils.data.Dataset):
    """The batches of one epoch by number; a broken image is handed over as the error that it raised."""

    def __init__(self, loader: Loader, epoch: int) -> None:
        self.loader, self.epoch = loader, epoch
        self.order = loader.order(epoch)

    def __len__(self) -> int:
        return len(self.loader)

    def __getitem__(self, number: int) -> _Packed | Exception:
        loader = self.loader
        try:
            indices = self.order[loader.places(number)].tolist()
            examples = [loader.example(self.epoch, index) for index in indices]
            ids = [loader.image_id(index) for index in indices]
        except (ValueError, OSError) as error:
            return error
        size = loader.image_size
        images = np.empty((len(examples), 3, size, size), dtype=np.float32)
        for image, example in zip(images, examples):
            image[...] = example.image.transpose(2, 0, 1)  # one pass: order, type and place in the batch
        _, boxes, labels, weights = map(list, zip(*examples))
        return _Packed(torch.from_numpy(images).div_(255), boxes, labels, weights, ids)


def _unpack(packed: _Packed | Exception) -> Batch:
    if isinstance(packed, Exception):
        raise packed
    targets = [
        Targets(*map(torch.from_numpy, arrays))
        for arrays in zip(packed.boxes, packed.labels, packed.weights, strict=True)
    ]
    return Batch(packed.images, targets, packed.image_ids)


def _ahead(epoch: _Epoch, numbers: range, workers: int) -> Iterator[_Packed | Exception]:
    """The same batches, prepared ahead by other processes; an own generator leaves torch's global one untouched."""
    return iter(
        torch.utils.data.DataLoader(
            epoch,
            batch_size=None,  # an item is a batch already
            sampler=numbers,
            num_workers=workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),
        )
    )


def _as_it_is(packed: Any) -> Any:
    return packed
