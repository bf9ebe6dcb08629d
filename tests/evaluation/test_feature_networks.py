"""Claims about networks that judge images: how they are found, what they are fed, what is refused."""

import functools
import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from banks import images
from data_sets import refusal
from judging_networks import Colours, Difference, Thirds, saved
from paths import SHARED
from piggyback_gan.evaluation.feature_networks import (
    INCEPTION_SHA256,
    FeatureNetwork,
    load_distance,
    load_features,
    load_recogniser,
)
from piggyback_gan.system.download import cache_folder, fetch

FEATURES = SHARED / "features"


@pytest.fixture
def colours(tmp_path: Path) -> FeatureNetwork:
    return load_features(saved(Colours(), tmp_path / "colours.pt"), "cpu")


def test_a_file_is_named_after_itself_and_known_by_its_hash(tmp_path: Path) -> None:
    path = saved(Colours(), tmp_path / "colours.pt")
    network = load_features(path, "cpu")
    assert network.name == "colours"
    assert network.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert not network.is_inception


def test_networks_see_values_from_0_to_1_and_give_float64(colours: FeatureNetwork) -> None:
    black, white, beyond = (
        -torch.ones(1, 3, 4, 4),
        torch.ones(1, 3, 4, 4),
        torch.full((1, 3, 4, 4), 7),
    )
    found = colours(torch.cat([black, white, beyond]))
    assert found.dtype == torch.float64
    assert torch.equal(found, torch.tensor([[0.0] * 12, [1.0] * 12, [1.0] * 12]).double())


def test_gray_images_are_judged_as_equal_channels(colours: FeatureNetwork) -> None:
    gray = images(2, 8, 8)[:, :1]
    assert torch.equal(colours(gray), colours(gray.repeat(1, 3, 1, 1)))


def test_other_channels_are_refused(colours: FeatureNetwork) -> None:
    assert "not 4 channels" in refusal(lambda: colours(torch.zeros(1, 4, 8, 8)))


def test_features_do_not_depend_on_the_batch(colours: FeatureNetwork) -> None:
    batch = images(70, 8, 8)
    together = colours(batch)
    alone = torch.cat([colours(image[None]) for image in batch])
    assert torch.allclose(together, alone, rtol=1e-6)


def test_a_python_callable_is_a_network_too(colours: FeatureNetwork) -> None:
    network = load_features("judging_networks:from_python", "cpu")
    assert network.name == "from_python"
    assert network.sha256 is None
    assert torch.equal(network(images(2, 8, 8)), colours(images(2, 8, 8)))


def test_a_distance_compares_each_image_with_its_partner(tmp_path: Path) -> None:
    network = load_distance(saved(Difference(), tmp_path / "d.pt"), "cpu")
    first, second = images(40, 8, 8), images(40, 8, 8, seed=1)
    expected = ((first - second) / 2).double().square().flatten(1).mean(1)
    assert torch.allclose(network(first, second), expected, rtol=1e-5)


def test_a_recogniser_gives_the_likeliest_class(tmp_path: Path) -> None:
    network = load_recogniser(saved(Thirds(), tmp_path / "r.pt"), "cpu")
    batch = images(2, 8, 8)
    assert torch.equal(network(batch, 3), batch.argmax(1))
    assert "should give logits (N, 5, 8, 8); found 2x3x8x8" in refusal(lambda: network(batch, 5))


class Wrong(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean()


class Fails(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(7, 7)


class Asserts(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[2] > 100, "too small"
        return images


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Asserts(), "can't judge images of 2x3x8x8: RuntimeError: AssertionError: too small"),
        (Wrong(), "should give a row for each of 2 images; found a single number"),
        (Fails(), "can't judge images of 2x3x8x8: RuntimeError: shape '[7, 7]'"),
        (Thirds(), "should give features (N, F); found 2x3x8x8"),
    ],
)
def test_a_network_that_doesnt_fit_is_named(tmp_path: Path, module: nn.Module, words: str) -> None:
    network = load_features(saved(module, tmp_path / "odd.pt"), "cpu")
    said = refusal(lambda: network(images(2, 8, 8)))
    assert said.startswith("odd ")
    assert words in said


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nothing.pt", "can't be read"),
        ("no.such.module:f", "can't be imported"),
        ("judging_networks:nothing", "can't be imported"),
        (".x:y", ".x:y can't be imported: TypeError: "),
        ("math:pi", "is neither a network"),
        (__file__, "is not a TorchScript file"),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(spec: str, words: str) -> None:
    assert words in refusal(lambda: load_features(spec, "cpu"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def network(:", "foreign:network can't be imported: SyntaxError: "),
        ("1 / 0", "foreign:network can't be imported: ZeroDivisionError: division by zero"),
        (
            "def network(images): return images.nothing",
            "network can't judge images of 1x3x8x8: AttributeError: ",
        ),
        ("def network(images): assert False", "1x3x8x8: AssertionError: "),
        ("def network(images): raise OSError('one\\ntwo')", "1x3x8x8: OSError: one"),
    ],
)
def test_whatever_foreign_code_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    (tmp_path / "foreign.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "foreign", raising=False)
    assert words in refusal(lambda: load_features("foreign:network", "cpu")(images(1, 8, 8)))


def test_ctrl_c_ends_a_foreign_network_too() -> None:
    def network(images: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FeatureNetwork(network, "slow", None, torch.device("cpu"))(images(1, 8, 8))


# --- downloads ---

CONTENT = b"a network" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server that has the file `network.pt`."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "network.pt").write_bytes(CONTENT)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def test_a_file_is_downloaded_once_and_whole(tmp_path: Path, server: str) -> None:
    path = tmp_path / "cache" / "network.pt"
    assert fetch(f"{server}/network.pt", SHA256, path) == path
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["network.pt"]
    # There is no such page: it must not be asked for.
    assert fetch(f"{server}/gone.pt", SHA256, path) == path


def test_a_damaged_download_is_fetched_again(tmp_path: Path, server: str) -> None:
    path = tmp_path / "network.pt"
    path.write_bytes(CONTENT[:-1])
    fetch(f"{server}/network.pt", SHA256, path)
    assert path.read_bytes() == CONTENT


def test_another_file_than_expected_is_not_kept(tmp_path: Path, server: str) -> None:
    path = tmp_path / "cache" / "network.pt"
    said = refusal(lambda: fetch(f"{server}/network.pt", "0" * 64, path))
    assert f"expected SHA-256 {'0' * 64}, found {SHA256}" in said
    assert not list(path.parent.iterdir())


def test_without_the_file_or_a_network_one_line_says_so(tmp_path: Path, server: str) -> None:
    path = tmp_path / "cache" / "network.pt"
    urls = [f"{server}/gone.pt", "http://127.0.0.1:9/network.pt", "http://nowhere.invalid/x"]
    for url in urls:
        said = refusal(functools.partial(fetch, url, SHA256, path))
        assert f"{url} can't be downloaded" in said
        assert str(path) in said
    assert not list(path.parent.iterdir())


def test_the_environment_places_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIGGYBACK_GAN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("PIGGYBACK_GAN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "piggyback-gan"


def test_no_way_to_inception_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIGGYBACK_GAN_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    # A file of that name which is not the network must not be taken for it.
    saved(Colours(), tmp_path / "inception-2015-12-05.pt")
    said = refusal(lambda: load_features("inception", "cpu"))
    assert "inception-2015-12-05.pt can't be downloaded" in said


class Raw(nn.Module):
    """As FID's network takes images: 8-bit values, and a word for features."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        return images.flatten(1) if return_features else images


def test_fids_network_is_fed_8_bit_values(tmp_path: Path) -> None:
    network = FeatureNetwork(Raw(), "inception", INCEPTION_SHA256, torch.device("cpu"))
    assert network.is_inception
    values = torch.tensor([-1.0, -0.999, 0.0, 0.5, 1.0]).expand(1, 3, 1, 5)
    assert network(values)[0, :5].tolist() == [0, 0, 128, 191, 255]


def test_a_file_of_that_name_with_another_content_is_not_called_inception(tmp_path: Path) -> None:
    network = load_features(saved(Colours(), tmp_path / "inception-2015-12-05.pt"), "cpu")
    assert not network.is_inception


# --- real networks ---


@pytest.mark.skipif(not FEATURES.is_dir(), reason="no ../shared/features")
def test_a_real_feature_network_gives_each_image_the_same_features_in_any_batch() -> None:
    network = load_features(str(FEATURES / "mobilenet_v2_features.pt"), "cpu")
    batch = images(3, 32, 32)
    found = network(batch)
    assert found.shape == (3, 1280)
    alone = torch.cat([network(image[None]) for image in batch])
    assert torch.allclose(found, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not FEATURES.is_dir(), reason="no ../shared/features")
def test_a_real_perceptual_distance_is_zero_for_equal_images_only() -> None:
    network = load_distance(str(FEATURES / "squeezenet_distance.pt"), "cpu")
    first, second = images(2, 64, 64), images(2, 64, 64, seed=1)
    assert network(first, first).tolist() == [0, 0]
    assert (network(first, second) > 0.1).all()
