"""The choice of the earlier task that a later one starts from."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from drawn import draw_pairs
from piggyback_gan import Bank, FilterOptions, teach
from piggyback_gan.core.factorize import conv_weights
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.training.callbacks import Callback
from piggyback_gan.training.starts import SHORTLIST, Start, choose_start, shortlist
from running import GENERATOR, OPTIONS, bank_files, stop


def blurring() -> nn.Module:
    """Three layers that can keep an image, or lose it."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 1, 3, padding=1)
    )


def network_with(*, keeps: float, loses: float) -> PiggybackNetwork:
    """Tasks "loses" and "keeps": features of the first are constant, those of the other are the image."""
    network = PiggybackNetwork(blurring())
    for name, value in (("loses", loses), ("keeps", keeps)):
        network.add_task(name, FilterOptions(unconstrained=1.0))
        with torch.no_grad():
            for parameter in network.trainable_parameters():
                parameter.zero_()
            first, second = (network.module[i] for i in (0, 2))
            first.unconstrained_filters[0, 4] = value  # the middle of a filter, (1, 3, 3)
            second.unconstrained_filters[0, 0] = 1.0
        network.finish_task()
    return network


def images(count: int = 4) -> list[Tensor]:
    chance = torch.Generator().manual_seed(0)
    return [torch.rand(2, 1, 12, 12, generator=chance) for _ in range(count)]


def test_the_task_whose_features_predict_the_targets_is_chosen() -> None:
    network = network_with(keeps=1.0, loses=0.0)
    network.add_task("new", FilterOptions(learn="free", unconstrained=0.25, init="auto"))
    assert network.chooses_start and network.made.start == "loses"
    inputs = images()
    start = choose_start(network, inputs, [2 * batch - 1 for batch in inputs])
    assert (start.init, start.tasks) == ("keeps", 2)
    # A linear map of the image itself leaves nothing; a constant leaves all of the variance.
    assert start.errors["keeps"] < 1e-4
    assert start.errors["loses"] == pytest.approx(1, abs=0.05)
    assert start.errors["standalone"] < 0.5
    assert network.made.start == "keeps" and network.task_in_training == "new"
    assert not network.chooses_start, "it is chosen"


def test_a_random_start_is_chosen_where_no_task_promises_anything() -> None:
    network = network_with(keeps=0.0, loses=0.0)
    network.add_task("new", FilterOptions(learn="free", unconstrained=0.25, init="auto"))
    inputs = images()
    assert choose_start(network, inputs, inputs).init == "standalone"
    assert network.made.start is None
    network.discard_task()
    # Low-rank mixing adds to an earlier task's filters from the first step: it can't start at random.
    network.add_task("new", FilterOptions(init="auto", unconstrained=0.25, mixing="low-rank"))
    start = choose_start(network, inputs, inputs)
    assert start.errors.keys() == {"loses", "keeps"} and start.init == "loses"


def test_a_network_without_a_last_layer_on_images_is_judged_by_its_outputs() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.along = nn.Conv1d(12, 12, 1, bias=False)

        def forward(self, images: Tensor) -> Tensor:
            made: Tensor = self.along(images[:, 0])
            return made[:, None]

    network = PiggybackNetwork(Rows())
    for name, scale in (("nothing", 0.0), ("all", 1.0)):
        network.add_task(name, FilterOptions(unconstrained=1.0))
        with torch.no_grad():
            network.module.along.unconstrained_filters.copy_(scale * torch.eye(12))
        network.finish_task()
    network.add_task("new", FilterOptions(learn="free", init="auto", unconstrained=0.25))
    assert choose_start(network, images(), images()).init == "all"


def test_half_of_a_start_is_noise_of_the_same_power() -> None:
    network = network_with(keeps=1.0, loses=1.0)
    weights = conv_weights(network.fold("keeps"))
    given = {name: network.layouts[name].to_filters(weights[name]) for name in ("0", "2")}
    torch.manual_seed(0)
    network.add_task(
        "new", FilterOptions(learn="free", unconstrained=0.25, init="keeps", start_noise=0.0)
    )
    for name, filters in given.items():
        assert torch.equal(network.module.get_submodule(name).unconstrained_filters, filters)
    network.discard_task()
    network.add_task("new", FilterOptions(learn="free", unconstrained=0.25, init="keeps"))
    for name, filters in given.items():
        begun = network.module.get_submodule(name).unconstrained_filters[0]
        both = torch.nn.functional.cosine_similarity(begun, filters[0], dim=0)
        assert 0.3 < both < 0.95
        assert float(begun.detach().norm()) == pytest.approx(float(filters[0].norm()), rel=0.6)


def test_of_many_tasks_some_are_compared() -> None:
    names = [str(i) for i in range(1000)]
    found = shortlist(names)
    assert len(found) == len(set(found)) == SHORTLIST
    assert found[0] == "0" and found[-4:] == names[-4:]
    assert [int(name) for name in found] == sorted(map(int, found))
    assert shortlist(names[:SHORTLIST]) == names[:SHORTLIST]


class Chosen(Callback):
    """Keeps the starts that were chosen."""

    def __init__(self) -> None:
        self.starts: dict[str, Start] = {}

    def start_chosen(self, generator: str, start: Start) -> None:
        self.starts[generator] = start


@pytest.mark.trains
@pytest.mark.usefixtures("without_curves", "same_time")
@pytest.mark.parametrize("mode", ["paired", "unpaired"])
def test_a_training_says_what_it_chose_and_resumes_with_it(
    tmp_path: Path, pairs: Path, mode: str
) -> None:
    options = dataclasses.replace(OPTIONS, mode=mode, epochs=1)
    other = draw_pairs(tmp_path / "other", train=4, test=2, size=20, seed=5)
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    for bank in (alone, stopped):
        teach(bank, "one", pairs, options, GENERATOR)
        teach(bank, "two", other, dataclasses.replace(options, seed=1), GENERATOR)
    chosen = Chosen()
    teach(alone, "three", pairs, options, callback=chosen)
    names = {"forward"} if mode == "paired" else {"forward", "backward"}
    assert chosen.starts.keys() == names
    for start in chosen.starts.values():
        assert start.errors.keys() == {"one", "two", "standalone"}
    assert Bank.open(alone).card("three").options["init"] == chosen.starts["forward"].init
    # While starts are compared, three for each generator; and after the second step.
    assert stop(2, stopped, "three", pairs, options).step == 0
    assert stop(3 * len(names) + 2, stopped, "three", resume=True).step == 2
    again = Chosen()
    teach(stopped, "three", resume=True, callback=again)
    assert not again.starts, "it is in the checkpoint"
    assert bank_files(stopped) == bank_files(alone)
