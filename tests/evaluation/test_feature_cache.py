"""Claims about kept features: computed once, never stale, never damaged."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from banks import flips, images
from judging_networks import Colours, saved
from piggyback_gan.evaluation.feature_cache import cached_features
from piggyback_gan.evaluation.feature_networks import FeatureNetwork, load_features

CPU = torch.device("cpu")


class Counting(FeatureNetwork):
    """Counts the images that it looks at."""

    seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return super().__call__(images)


def counting(sha256: str | None = "0" * 64) -> Counting:
    return Counting(Colours(), "colours", sha256, CPU)


def batches(count: int = 5, size: int = 8, seed: int = 0) -> Iterator[Tensor]:
    """Images two by two."""
    yield from images(count, size, size, seed=seed).split(2)


def test_images_are_looked_at_once(tmp_path: Path) -> None:
    folder, network = tmp_path / "deep" / "cache", counting()
    first = cached_features(network, batches, folder)
    assert network.seen == 5
    assert torch.equal(first, network(images(5, 8, 8)))
    network.seen = 0
    assert torch.equal(first, cached_features(network, batches, folder))
    assert network.seen == 0
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def test_without_a_folder_or_a_hash_they_are_looked_at_each_time(tmp_path: Path) -> None:
    for network, folder in ((counting(), None), (counting(sha256=None), tmp_path)):
        for _ in range(2):
            cached_features(network, batches, folder)
        assert network.seen == 10
    assert not list(tmp_path.iterdir())


def test_other_images_another_order_or_another_network_are_other_features(tmp_path: Path) -> None:
    network = counting()
    turned = list(batches())[::-1]
    for found in (
        cached_features(network, batches, tmp_path),
        cached_features(network, lambda: batches(count=4), tmp_path),
        cached_features(network, lambda: batches(seed=1), tmp_path),
        cached_features(network, lambda: batches(size=10), tmp_path),
        cached_features(network, lambda: iter(turned), tmp_path),
        cached_features(counting("1" * 64), batches, tmp_path),
    ):
        assert found.shape[1] == 12
    assert len(list(tmp_path.iterdir())) == 6


def test_how_images_are_batched_does_not_matter(tmp_path: Path) -> None:
    network = counting()
    cached_features(network, batches, tmp_path)
    cached_features(network, lambda: iter([images(5, 8, 8)]), tmp_path)
    assert network.seen == 5


def test_whatever_is_damaged_is_written_anew(tmp_path: Path) -> None:
    network = counting()
    expected = cached_features(network, batches, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    # Length, header and values; and files cut short.
    damaged = [*flips(whole, range(0, len(whole), 37)), whole[:-1], whole[:5], b""]
    for content in damaged:
        file.write_bytes(content)
        network.seen = 0
        assert torch.equal(cached_features(network, batches, tmp_path), expected)
        if network.seen:
            assert file.read_bytes() == whole
    assert len(damaged) > 20


def test_a_folder_that_cant_be_written_to_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    network = counting()
    found = cached_features(network, batches, tmp_path / "file" / "cache")
    assert torch.equal(found, network(images(5, 8, 8)))


def test_a_networks_file_decides_whose_features_they_are(tmp_path: Path) -> None:
    first = load_features(saved(Colours(), tmp_path / "one.pt"), CPU)
    (tmp_path / "two.pt").write_bytes((tmp_path / "one.pt").read_bytes())
    same = load_features(str(tmp_path / "two.pt"), CPU)
    for network in (first, same):
        cached_features(network, batches, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
