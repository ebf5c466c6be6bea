"""Batches for training without hidden state: what epoch e holds at any place follows from the seed alone.

So training can stop anywhere and go on with exactly the batches it would have seen, whatever the number of workers, and
several processes together see the batches of one (notebook 06).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from yolonas_lab.common import check_image_size, progress
from yolonas_lab.data.augment import Augmentation, LabeledImage, Samples, augment
from yolonas_lab.data.coco import Batch, Targets

_ORDER, _PIXELS = 0, 1  # two streams of random numbers that do not meet


class Loader:
    """Batches of augmented images of image_size px: `len(loader)` per epoch, `loader.batches(epoch)`.

    batch_size counts the images of one process; with world_size processes, step t takes batch_size * world_size images
    and process `rank` gets its part of them, in order. The images of an epoch that do not fill a batch are left out.
    workers processes prepare batches ahead (0: in this process); the batches are the same bit for bit. cache keeps all
    decoded images in memory, read once in the beginning. Raises ValueError for settings that make no batch.
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
        cache: bool = False,
    ) -> None:
        self.dataset, self.batch_size, self.image_size = dataset, batch_size, check_image_size(image_size)
        self.augmentation = Augmentation.none() if augmentation is None else augmentation
        self.seed, self.shuffle, self.workers, self.cache = seed, shuffle, workers, cache
        self.rank, self.world_size = rank, world_size
        self._source = dataset  # later the decoded images in memory, if cache
        for name, lowest in (("batch_size", 1), ("world_size", 1), ("workers", 0), ("seed", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} is {getattr(self, name)}: give a whole number of at least {lowest}.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}, but must lie in 0 … {world_size - 1} (world_size - 1).")
        if len(self) == 0:
            raise ValueError(
                f"the data set has {len(dataset)} images, too few for one batch of {batch_size * world_size}: use a "
                "smaller batch_size."
            )

    def __len__(self) -> int:
        """Batches per epoch, the same for every rank."""
        return len(self.dataset) // (self.batch_size * self.world_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (0, 1, …) from batch `start` on.

        Raises ValueError or FileNotFoundError naming the image that cannot be read, whatever the number of workers.
        """
        if epoch < 0 or not 0 <= start <= len(self):
            raise ValueError(f"there is no batch {start} of epoch {epoch}: an epoch has batches 0 … {len(self) - 1}.")
        if self.cache and self._source is self.dataset:
            self._source = [self.dataset[i] for i in progress(range(len(self.dataset)), "reading images", "image")]
        prepared = torch.utils.data.DataLoader(
            _Epoch(self, epoch),
            batch_size=None,  # an item is a batch already
            sampler=range(start, len(self)),
            num_workers=self.workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # leaves torch's global one untouched
        )
        return map(_unpack, iter(prepared))

    def order(self, epoch: int) -> np.ndarray:
        """Which image of the data set stands at each place of an epoch: (images,) int64, the same for every rank."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self.dataset))

    def example(self, epoch: int, index: int) -> LabeledImage:
        """Image `index` of the data set as it is augmented in an epoch, before it becomes part of a batch."""
        rng = np.random.default_rng([_PIXELS, self.seed, epoch, index])
        return augment(self._source[index], self.augmentation, self.image_size, rng, self._source)


class _Epoch(torch.utils.data.Dataset):
    """The batches of one epoch by number, as they travel from a worker: one tensor, and small arrays (boxes, labels,
    weights) and the id of each image; or the error that a broken image raised.
    """

    def __init__(self, loader: Loader, epoch: int) -> None:
        self.loader, self.epoch = loader, epoch
        self.order = loader.order(epoch)

    def __getitem__(self, number: int) -> Any:
        loader = self.loader
        first = (number * loader.world_size + loader.rank) * loader.batch_size
        indices = self.order[first : first + loader.batch_size].tolist()
        try:
            examples = [loader.example(self.epoch, index) for index in indices]
            ids = getattr(loader.dataset, "image_ids", None)  # without reading the images again
            ids = [ids[index] if ids is not None else loader._source[index].image_id for index in indices]
        except (ValueError, OSError) as error:
            return error
        images = np.empty((len(examples), 3, loader.image_size, loader.image_size), dtype=np.float32)  # (b, 3, s, s)
        for image, example in zip(images, examples):
            image[...] = example.image.transpose(2, 0, 1)  # one pass: order, type and place in the batch
        return torch.from_numpy(images).div_(255), [example[1:] for example in examples], ids


def _unpack(packed: Any) -> Batch:
    if isinstance(packed, Exception):
        raise packed
    images, objects, ids = packed
    return Batch(images, [Targets(*map(torch.from_numpy, arrays)) for arrays in objects], ids)


def _as_it_is(packed: Any) -> Any:
    return packed
