"""Batches: the same from any place, with any number of workers, and over several processes together."""

import hashlib
import pickle

import numpy as np
import pytest
import torch

from yolonas_lab.data import Augmentation, CocoDataset, Loader, Sample, make_scenes

ALL = Augmentation(
    translate=0.2, scale=(0.6, 1.4), rotation=20, hsv=0.5, hue=30, saturation=30, value=30, flip=0.5,
    channel_swap=0.5, mosaic=0.3, mixup=0.3,
)  # fmt: skip


def images(count):
    """Samples in memory: random pixels, one to three boxes, another size each; every fifth without boxes."""
    rng = np.random.default_rng(7)
    samples = []
    for index in range(count):
        height, width = rng.integers(30, 80, 2)
        n = 0 if index % 5 == 4 else int(rng.integers(1, 4))
        corners = rng.uniform(0, 15, (n, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(4, 15, (n, 2))], axis=1).astype(np.float32)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        labels, crowd = rng.integers(0, 6, n), np.zeros(n, dtype=bool)
        samples.append(Sample(pixels, boxes, labels, crowd, 100 + index, f"{index}.png"))
    return samples


SAMPLES = images(23)


def assert_same(first, second):
    first, second = list(first), list(second)
    assert len(first) == len(second)
    for a, b in zip(first, second):
        assert a.image_ids == b.image_ids
        assert torch.equal(a.images, b.images)
        for s, t in zip(a.targets, b.targets, strict=True):
            assert torch.equal(s.boxes, t.boxes) and torch.equal(s.labels, t.labels)
            assert torch.equal(s.weights, t.weights)


def test_a_batch_by_hand():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    box = np.array([[1, 2, 30, 20]], dtype=np.float32)
    one = Sample(pixels, box, np.array([4]), np.array([False]), 77, "a.png")
    [batch] = Loader([one], batch_size=1, image_size=64).batches(0)
    assert batch.images.dtype == torch.float32 and batch.images.is_contiguous()
    assert torch.equal(batch.images[0, :, 16:48], torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    assert (batch.images[0, :, :16] == 114 / 255).all() and (batch.images[0, :, 48:] == 114 / 255).all()
    [target] = batch.targets
    assert target.boxes.tolist() == [[1, 18, 30, 36]] and target.boxes.dtype == torch.float32
    assert target.labels.tolist() == [4] and target.labels.dtype == torch.int64
    assert batch.image_ids == [77]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers_goes_on_anywhere_with_the_same_batches_bit_for_bit(workers):
    whole = list(Loader(SAMPLES, 4, 64, ALL, seed=3).batches(6))
    for start in (0, 3, 5):
        assert_same(Loader(SAMPLES, 4, 64, ALL, seed=3, workers=workers).batches(6, start), whole[start:])


@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_the_batch_of_one_process_in_order(shuffle):
    together = Loader(SAMPLES, 6, 64, ALL, shuffle=shuffle)
    parts = [Loader(SAMPLES, 2, 64, ALL, shuffle=shuffle, rank=rank, world_size=3) for rank in range(3)]
    assert [len(part) for part in parts] == [len(together)] * 3 == [3] * 3
    for whole, *pieces in zip(together.batches(1), *(part.batches(1) for part in parts), strict=True):
        assert whole.image_ids == [image_id for piece in pieces for image_id in piece.image_ids]
        assert torch.equal(whole.images, torch.cat([piece.images for piece in pieces]))
        boxes = [target.boxes for piece in pieces for target in piece.targets]
        assert all(torch.equal(target.boxes, other) for target, other in zip(whole.targets, boxes, strict=True))


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order():
    loader = Loader(SAMPLES, 4, 64)
    orders = [[i for batch in loader.batches(epoch) for i in batch.image_ids] for epoch in (0, 1)]
    assert len(loader) == 5
    for epoch, order in enumerate(orders):
        assert len(set(order)) == 20 and sorted(loader.order(epoch)) == list(range(23))
        assert order == [100 + index for index in loader.order(epoch)[:20]]
    assert orders[0] != orders[1] and orders[0] != sorted(orders[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_random_states_of_torch_and_numpy_are_neither_read_nor_moved(workers):
    def batches():
        return list(Loader(SAMPLES, 4, 64, ALL, workers=workers).batches(0))

    torch.manual_seed(1)
    first, state = batches(), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    np.random.default_rng(0)
    assert_same(first, batches())


DIGESTS = {"none": "de5606b083f8bc2a", "lab": "7f3cd113c7f30ff9", "coco": "7f4c25b4ccd4e5fd", "all": "c2732dd5a8704736"}


@pytest.mark.parametrize("name", DIGESTS)
def test_every_pixel_and_box_is_what_it_was_when_the_shipped_weights_were_trained(name):
    augmentation = ALL if name == "all" else getattr(Augmentation, name)()
    content = hashlib.sha256()
    loader = pickle.loads(pickle.dumps(Loader(SAMPLES, 4, 64, augmentation, seed=11)))  # as spawned workers need it
    for batch in loader.batches(1):
        content.update(batch.images.numpy().tobytes())
        for boxes, labels, _ in batch.targets:
            content.update(np.round(boxes.numpy(), 3).tobytes() + labels.numpy().tobytes())
    assert content.hexdigest()[:16] == DIGESTS[name]


def test_a_cache_reads_every_image_once_and_changes_nothing():
    reads = []

    class Counting(list):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    cached, plain = Loader(Counting(SAMPLES), 4, 64, ALL, cache=True), Loader(SAMPLES, 4, 64, ALL)
    for epoch in (0, 1):
        assert_same(cached.batches(epoch), plain.batches(epoch))
    assert sorted(reads) == list(range(len(SAMPLES)))
    assert_same(Loader(SAMPLES, 4, 64, ALL, cache=True, workers=2).batches(1), plain.batches(1))


# bad input


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache", [False, True])
def test_a_broken_or_vanished_image_is_named_with_any_number_of_workers(tmp_path, workers, cache):
    scenes = make_scenes(tmp_path / "scenes", train=12, val=0, image_size=64)
    dataset = CocoDataset(scenes.images_dir("train"), scenes.annotations("train"))
    loader = Loader(dataset, 4, 64, workers=workers, cache=cache)
    broken = dataset.image_path(5)
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"000005.png is broken or cut off") as caught:
        list(loader.batches(0))
    assert "\n" not in str(caught.value)
    broken.unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no image .*000005.png"):
        list(loader.batches(0))


BAD = [
    ({"dataset": []}, "the data set has 0 images"),
    ({"batch_size": 0}, "batch_size is 0: give a whole number of at least 1"),
    ({"batch_size": 24}, "the data set has 23 images, too few for one batch of 24: use a smaller batch_size"),
    ({"image_size": 100}, "image_size is 100: give a multiple of 32 px"),
    ({"seed": -1}, "seed is -1"),
    ({"rank": 2, "world_size": 2}, r"rank is 2, but must lie in 0 … 1"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        Loader(**{"dataset": SAMPLES, "batch_size": 4, "image_size": 64, **bad})


@pytest.mark.parametrize(("epoch", "start"), [(-1, 0), (0, -1), (0, 6)])
def test_a_place_that_does_not_exist_is_refused_at_once(epoch, start):
    with pytest.raises(ValueError, match=rf"there is no batch {start} of epoch {epoch}"):
        Loader(SAMPLES, 4, 64).batches(epoch, start)
    assert list(Loader(SAMPLES, 4, 64).batches(0, start=5)) == []
