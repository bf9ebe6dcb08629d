"""Claims about banks: nothing is forgotten on disk, kills, what readers may do, verify, tasks, remove."""

import json
import math
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import safetensors
import torch
from PIL import Image
from torch import Tensor, nn

from banks import (
    CONFIG,
    LAMBDAS,
    card,
    contents,
    evenly,
    faults,
    file_of,
    fill,
    flips,
    images,
    in_process,
    learn,
    network,
    pipe,
    start,
    writer,
)
from commands import pbgan
from piggyback_gan.bank.bank import Bank, open_or_new
from piggyback_gan.bank.store import Store
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator

NOBODY = 65534
LAYERS = {
    name: (module.out_channels, module.weight.numel() // module.out_channels)
    for name, module in build_generator(CONFIG).named_modules()
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
}
"""Layer -> how many filters it has, and how many values each."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks: maps, night, sketch."""
    return fill(tmp_path_factory.mktemp("template") / "bank").path


# --- nothing is forgotten ---


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_earlier_tasks_give_equal_outputs_from_disk_after_a_third_was_added(
    tmp_path: Path, norm: str
) -> None:
    config, picture = replace(CONFIG, norm=norm), images(2, 16, 24)
    learner = network(config)
    path = tmp_path / "bank"
    live: dict[str, Tensor] = {}
    before: dict[str, Tensor] = {}
    for name, unconstrained in LAMBDAS.items():
        state = learn(learner, name, unconstrained)
        live[name] = learner.eval()(picture).detach()
        bank = open_or_new(path, config)
        with bank.writing("test"):
            bank.add(state, card(learner, name, unconstrained))
        before[name] = Bank.open(path).translate(name, picture)
    reopened = Bank.open(path)
    for name in LAMBDAS:
        assert torch.equal(before[name], live[name])
        assert torch.equal(reopened.translate(name, picture), before[name])
        assert torch.equal(reopened.generator(name)(picture), before[name])
    assert not torch.equal(before["maps"], before["night"])
    assert not torch.equal(before["night"], before["sketch"])


def test_the_next_task_can_be_learned_from_a_reopened_bank_as_from_the_network_that_was_kept(
    bank: Bank, template: Path
) -> None:
    kept = network()
    for name, unconstrained in LAMBDAS.items():
        learn(kept, name, unconstrained)
    reopened = bank.network()
    expected, found = learn(kept, "winter", 0.5), learn(reopened, "winter", 0.5)
    assert expected.tensors.keys() == found.tensors.keys()
    assert all(torch.equal(found.tensors[key], expected.tensors[key]) for key in found.tensors)


def test_a_task_file_holds_only_what_the_task_added(bank: Bank) -> None:
    whole = network()
    private = {key: t.shape for key, t in whole.module.state_dict().items()}
    rows = dict.fromkeys(LAYERS, 0)
    for name in LAMBDAS:
        with safetensors.safe_open(file_of(bank, name), "pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            shares = json.loads(file.metadata()["unconstrained"])
        values = sum(map(math.prod, shapes.values()))
        expected = {key: tuple(shape) for key, shape in private.items()}
        for layer in LAYERS:
            filters, length = (whole.layouts[layer].filters, whole.layouts[layer].length)
            added = math.ceil(round(shares[layer] * filters, 9))
            if added:
                expected[f"{layer}.unconstrained_filters"] = (added, length)
            if added < filters:
                expected[f"{layer}.mixing_weights"] = (filters - added, rows[layer])
            rows[layer] += added
        assert shapes == expected
        header = int.from_bytes(file_of(bank, name).read_bytes()[:8], "little")
        buffers = sum(key.endswith("num_batches_tracked") for key in shapes)
        assert file_of(bank, name).stat().st_size == 8 + header + 4 * values + 4 * buffers


def test_a_bank_is_a_collection_of_task_names(bank: Bank, tmp_path: Path) -> None:
    assert (len(bank), list(bank)) == (3, list(LAMBDAS))
    assert "night" in bank and "winter" not in bank and 3 not in bank
    assert repr(bank) == f"Bank('{bank.path}', tasks=['maps', 'night', 'sketch'])"
    empty = Bank.new(tmp_path / "empty", CONFIG)
    assert (len(empty), list(empty)) == (0, [])


def test_a_card_is_read_once_until_the_bank_changes(bank: Bank) -> None:
    bank.translate("sketch", images(8, 8))
    file_of(bank, "sketch").unlink()
    assert bank.translate("sketch", images(8, 8)).shape == (3, 8, 8)
    assert bank.card("sketch") is bank.card("sketch")
    with bank.writing("test"):
        bank.remove("sketch")
    with pytest.raises(PiggybackError, match="no task 'sketch'"):
        bank.card("sketch")


def test_every_task_keeps_its_own_lambda_and_card(bank: Bank) -> None:
    for name, unconstrained in LAMBDAS.items():
        assert bank.card(name).options["unconstrained"] == unconstrained
    state = bank.network().task_state("sketch")
    assert state.filters.shares["model.1"] == 0.1
    assert {share for layer, share in state.filters.shares.items() if layer != "model.1"} == {0.5}


def open_knowing_nothing(path: Path) -> tuple[GeneratorConfig, list[tuple[str, bytes]]]:
    """Open a bank and use each task; unpickling anything ends the process."""

    def no_pickle(event: str, arguments: tuple[object, ...]) -> None:
        if event == "pickle.find_class":
            os._exit(1)

    sys.addaudithook(no_pickle)
    bank = Bank.open(path)
    results = [(task, bank.translate(task, images(9, 7)).numpy().tobytes()) for task in bank.tasks]
    return bank.config, results


def test_a_fresh_process_opens_a_bank_by_its_path_alone_and_without_pickle(bank: Bank) -> None:
    config, results = in_process(open_knowing_nothing, bank.path)
    assert config == bank.config == CONFIG
    assert results == [
        (task, bank.translate(task, images(9, 7)).numpy().tobytes()) for task in LAMBDAS
    ]


def test_with_source_date_epoch_the_same_tasks_give_byte_identical_banks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: Path
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    one, two = (contents(fill(tmp_path / name).path) for name in ("one", "two"))
    assert one == two
    without = contents(template)
    assert without.pop("bank.json") != one.pop("bank.json")
    assert without == one


# --- folding ---


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def wide_network() -> PiggybackNetwork:
    """Layers that are wide enough for matrix products to be split among threads."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 128, 3),
        nn.ReLU(),
        nn.Conv2d(128, 128, 3),
        nn.ConvTranspose2d(128, 96, 3),
    ]
    return PiggybackNetwork(nn.Sequential(*layers))


def learn_wide(network: PiggybackNetwork, name: str) -> None:
    network.add_task(name, evenly(init=None if name == "maps" else "standalone"))
    network.finish_task()


def bits(module: nn.Module) -> dict[str, bytes]:
    return {key: tensor.numpy().tobytes() for key, tensor in module.state_dict().items()}


@pytest.mark.usefixtures("threads")
def test_a_task_folds_to_the_same_bits_with_any_number_of_threads_whatever_came_after_it() -> None:
    learner = wide_network()
    folded: dict[str, dict[str, bytes]] = {}
    for name in ("maps", "night", "sketch"):
        learn_wide(learner, name)
        folded[name] = bits(learner.fold(name))
    for count in (1, 2, 4):
        torch.set_num_threads(count)
        assert {name: bits(learner.fold(name)) for name in folded} == folded


def test_a_task_of_a_bank_folds_to_the_same_bits_without_the_later_ones(bank: Bank) -> None:
    for name in LAMBDAS:
        assert bits(bank.network().fold(name)) == bits(bank.generator(name))
        shorter = Bank.open(shutil.copytree(bank.path, bank.path.parent / name))
        for later in reversed(shorter.tasks[shorter.tasks.index(name) + 1 :]):
            shorter.remove(later)
        assert bits(shorter.network().fold(name)) == bits(bank.generator(name))


# --- using a bank ---


def test_a_generator_is_a_plain_module_of_its_own(bank: Bank) -> None:
    generator = bank.generator("night")
    plain = build_generator(CONFIG)
    assert type(generator) is type(plain)
    assert [type(m) for m in generator.modules()] == [type(m) for m in plain.modules()]
    assert generator.state_dict().keys() == plain.state_dict().keys()
    assert not generator.training
    plain.load_state_dict(generator.state_dict())
    assert torch.equal(plain.eval()(images(1, 16, 16)), generator(images(1, 16, 16)))
    with torch.no_grad():
        for tensor in generator.state_dict().values():
            tensor.zero_()
    assert torch.equal(bank.generator("night")(images(1, 16, 16)), plain(images(1, 16, 16)))


@pytest.mark.parametrize("size", [(64, 64), (37, 51), (1, 1), (3, 90), (8, 5)])
def test_an_image_of_any_size_comes_back_in_its_size(bank: Bank, size: tuple[int, int]) -> None:
    tensor = images(*size)
    out = bank.translate("night", tensor)
    assert out.shape == (3, *size)
    assert out.dtype == torch.float32 and out.abs().max() <= 1
    batch = torch.stack([tensor, -tensor])
    outs = bank.translate("night", batch)
    assert outs.shape == (2, 3, *size)
    torch.testing.assert_close(outs[0], out)
    picture = Image.effect_noise((size[1], size[0]), 80).convert("RGB")
    translated = bank.translate("night", picture)
    assert isinstance(translated, Image.Image)
    assert (translated.size, translated.mode) == (picture.size, "RGB")


def test_an_image_of_a_fitting_size_is_translated_as_by_the_generator(bank: Bank) -> None:
    tensor = images(2, 16, 24)
    with torch.inference_mode():
        expected = bank.generator("sketch")(tensor)
    assert torch.equal(bank.translate("sketch", tensor), expected)


def test_gray_goes_in_and_colour_comes_out_where_a_bank_is_made_so(tmp_path: Path) -> None:
    config = replace(CONFIG, input_channels=1)
    learner = network(config)
    learner.add_task("colours")
    learner.finish_task()
    bank = Bank.new(tmp_path / "bank", config)
    with bank.writing("test"):
        about = card(learner, "colours", formats=(ImageFormat(channels=1), ImageFormat()))
        bank.add(learner.task_state("colours"), about)
    assert bank.translate("colours", Image.new("L", (37, 51))).mode == "RGB"
    assert bank.translate("colours", torch.zeros(1, 37, 51)).shape == (3, 37, 51)
    with pytest.raises(PiggybackError, match=r"expected float images \(B, 1, H, W\) in"):
        bank.translate("colours", torch.zeros(3, 37, 51))


@pytest.mark.parametrize("shape", [(16, 16), (1, 16, 16), (2, 4, 16, 16), (1, 1, 3, 16, 16)])
def test_a_tensor_of_another_shape_is_refused(bank: Bank, shape: tuple[int, ...]) -> None:
    with pytest.raises(PiggybackError, match="expected float images"):
        bank.translate("maps", torch.zeros(shape))


def test_an_unknown_task_is_answered_with_those_there_are(bank: Bank) -> None:
    for use in (bank.generator, bank.card, bank.remove, lambda t: bank.translate(t, images(8, 8))):
        with pytest.raises(PiggybackError, match="no task 'winter'; tasks: maps, night, sketch"):
            use("winter")


def test_using_a_bank_leaves_the_random_state_alone(bank: Bank) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    bank.generator("night")
    bank.verify()
    assert torch.equal(torch.rand(1), expected)


# --- making and opening ---


def test_a_folder_of_other_things_does_not_become_a_bank(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    for path in (tmp_path, tmp_path / "holiday.jpg"):
        with pytest.raises(PiggybackError, match="is not a bank, and the folder is not empty"):
            open_or_new(path, CONFIG)
        with pytest.raises(PiggybackError, match="is not a bank"):
            Bank.open(path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_new_bank_is_not_on_disk_before_its_first_task(tmp_path: Path) -> None:
    bank = Bank.new(tmp_path / "bank", CONFIG)
    with bank.writing("test"):
        pass
    assert bank.tasks == ()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_first_writer_left_is_no_obstacle_to_a_new_bank(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    left = (
        "bank.lock",
        "bank.writer.json",
        ".bank.json.a1.tmp",
        "tasks/.0001-a.safetensors.b2.tmp",
    )
    for name in left:
        (tmp_path / name).touch()
    fill(tmp_path, lambdas={"maps": 1.0})
    assert contents(tmp_path).keys() == {"bank.json", "tasks/0001-maps.safetensors"}


@pytest.mark.parametrize(
    "architecture",
    [
        {},
        {"generator": {"name": "transformer"}},
        {"generator": {"heads": 8}},
        {"generator": {"ngf": "many"}},
        {"generator": 7},
        {"generator": {"name": "os:system; rm"}},
        {"generator": {"name": "nets:build", "arguments": [1]}},
        {"generator": {"name": "nets:build", "size_multiple": 0}},
    ],
)
def test_a_generator_that_is_not_known_here_is_said_to_be_so(
    bank: Bank, architecture: dict[str, object]
) -> None:
    replace(bank.manifest, architecture=architecture).write(bank.path)
    with pytest.raises(PiggybackError, match="has a generator this version does not know"):
        Bank.open(bank.path)
    replace(bank.manifest, architecture=[]).write(bank.path)
    with pytest.raises(PiggybackError, match="is damaged: Expected `object`, got `array`"):
        Bank.open(bank.path)


# --- verify ---


def test_a_whole_bank_verifies_task_by_task(bank: Bank) -> None:
    assert [(f.part, f.problem) for f in bank.verify()] == [(task, None) for task in LAMBDAS]


@pytest.mark.parametrize("task", LAMBDAS)
def test_a_flipped_bit_anywhere_is_found_and_named(bank: Bank, task: str) -> None:
    path = file_of(bank, task)
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    pick = random.Random(task)
    offsets = (
        pick.randrange(8),
        8 + good[8:header].index(b"sha256") + pick.randrange(64),
        pick.randrange(8, header),
        pick.randrange(header, len(good)),
        pick.randrange(header, len(good)),
        len(good) - 1,
    )
    for damaged in flips(good, offsets):
        path.write_bytes(damaged)
        found = faults(bank)
        assert next(iter(found)) == task
        assert found[task].startswith(f"task {task!r}: {path} is damaged")
        # The later tasks mix the damaged one's filters.
        assert list(found) == list(LAMBDAS)[list(LAMBDAS).index(task) :]
        for name in (name for name in LAMBDAS if name not in found):
            Bank.open(bank.path).generator(name)
        with pytest.raises(PiggybackError, match=f"task {task!r}: .* is damaged"):
            Bank.open(bank.path).generator(task)


def test_a_whole_task_of_another_shape_is_found(bank: Bank) -> None:
    wider = network(replace(CONFIG, ngf=4))
    bank.remove("sketch")
    state = learn(wider, "wider")
    before = contents(bank.path)
    with pytest.raises(PiggybackError, match=r"'wider' does not fit the network: model\.1"):
        bank.add(state, {})
    assert contents(bank.path) == before
    Store.open(bank.path).append(state, {})
    bank = Bank.open(bank.path)
    assert "task 'wider' does not fit the network: model.1" in faults(bank)["wider"]


def test_values_that_are_not_finite_are_found(bank: Bank) -> None:
    state = learn(bank.network(), "winter")
    state.tensors["model.26.bias" if "model.26.bias" in state.tensors else "model.23.bias"][0] = (
        math.nan
    )
    bank.add(state, {})
    assert faults(bank).keys() == {"winter"}
    assert "has values that are not finite" in faults(bank)["winter"]


def test_pbgan_verify_says_which_task_is_damaged_by_its_exit_status_too(bank: Bank) -> None:
    whole = pbgan("verify", bank.path)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert [line.split() for line in whole.stdout.splitlines()] == [
        ["ok", task] for task in LAMBDAS
    ]
    path = file_of(bank, "night")
    content = bytearray(path.read_bytes())
    content[-100] ^= 16
    path.write_bytes(content)
    damaged = pbgan("verify", bank.path)
    assert damaged.returncode == 1
    assert damaged.stdout.split() == ["ok", "maps", "damaged", "night", "damaged", "sketch"]
    assert damaged.stderr.splitlines() == [
        f"pbgan: task 'night': {path} is damaged: its SHA-256 is not the one in the manifest",
        "pbgan: task 'sketch': can't be composed without 'night'",
    ]


def test_pbgan_verify_finds_a_damaged_manifest(bank: Bank) -> None:
    manifest = bank.path / "bank.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"night"', b'"nighu"'))
    said = pbgan("verify", bank.path)
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith(f"pbgan: {manifest} is damaged")
    assert said.stderr.count("\n") == 1


# --- kills and readers ---


def write_for_ever(path: Path, template: Path, sender: Connection) -> None:
    """Add and remove the tasks of another bank until killed."""
    tasks = list(Store.open(template).read())
    sender.send("ready")
    adding = True
    while True:
        bank = open_or_new(path, CONFIG)
        adding = (adding or not bank.tasks) and len(bank.tasks) < len(tasks)
        with bank.writing("test"):
            if adding:
                task = tasks[len(bank.tasks)]
                bank.add(task.state, task.card)
            else:
                bank.remove(bank.tasks[-1])


def test_kill_9_at_any_moment_leaves_a_bank_that_opens_and_verifies(
    tmp_path: Path, template: Path
) -> None:
    path = tmp_path / "bank"
    delays = random.Random(0)
    expected = {name: Bank.open(template).translate(name, images(9, 7)) for name in LAMBDAS}
    trials = with_leftovers = 0
    # On a busy machine a writer may be killed before it began: those kills do not count.
    while trials < 12 or (with_leftovers < 3 and trials < 100):
        trials += 1
        receiver, sender = pipe()
        process = start(write_for_ever, path, template, sender)
        assert receiver.recv() == "ready"
        time.sleep(delays.uniform(0, 0.15))
        process.kill()
        process.join()
        if not (path / "bank.json").exists():
            Bank.new(path, CONFIG)
            continue
        bank = Bank.open(path)
        assert [f.problem for f in bank.verify()] == [None] * len(bank.tasks)
        assert bank.tasks == tuple(LAMBDAS)[: len(bank.tasks)]
        for name in bank.tasks:
            assert torch.equal(bank.translate(name, images(9, 7)), expected[name])
        with_leftovers += (path / "bank.writer.json").exists()
        with bank.writing("test"):
            bank.add(learn(bank.network(), "winter"), {})
            bank.remove("winter")
        assert bank.leftovers() == []
        files = {"bank.json", *(f"tasks/{entry.file}" for entry in bank.entries)}
        assert contents(path).keys() == files
    assert with_leftovers >= 3, "too few of the kills hit a writer at work"


def test_readers_read_while_a_writer_holds_the_bank_and_a_second_writer_is_told_who_does(
    bank: Bank,
) -> None:
    before = contents(bank.path)
    holder = writer(bank.path, "train winter")
    reader = Bank.open(bank.path)
    assert [f.problem for f in reader.verify()] == [None] * 3
    assert reader.translate("night", images(9, 7)).shape == (3, 9, 7)
    said = pbgan("remove", bank.path, "sketch", "--yes")
    assert said.returncode == 2
    assert re.fullmatch(
        rf"pbgan: error: {bank.path} is being written by process {holder.pid} on .* "
        r"\(train winter, since .*\): wait for it\n",
        said.stderr,
    )
    holder.kill()
    holder.join()
    with reader.writing("test"):
        pass
    assert contents(bank.path) == before


def read_for_ever(path: Path, stop: Connection, sender: Connection) -> None:
    """Use the first task, which is never removed, until told to stop."""
    reads = 0
    while not stop.poll(0):
        bank = Bank.open(path)
        bank.translate(bank.tasks[0], images(8, 8))
        reads += 1
    sender.send(reads)


def test_any_number_of_readers_read_while_tasks_come_and_go(bank: Bank) -> None:
    receiver, sender = pipe()
    stopped, stop = pipe()
    readers = [start(read_for_ever, bank.path, stopped, sender) for _ in range(2)]
    sender.close()
    state = learn(bank.network(), "winter")
    for _ in range(15):
        with bank.writing("test"):
            bank.add(state, {})
        with bank.writing("test"):
            bank.remove("winter")
    stop.send("stop")
    assert all(receiver.recv() > 0 for _ in readers)
    for reader in readers:
        reader.join()
        assert reader.exitcode == 0


# --- full disks and read-only folders ---


def add_on_a_full_disk(path: Path) -> str:
    bank = Bank.open(path)
    state = learn(bank.network(), "winter")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    with bank.writing("train winter"):
        bank.add(state, {})
    return "added"


def test_a_full_disk_is_one_line_and_the_bank_is_as_it_was(bank: Bank) -> None:
    before = contents(bank.path)
    with pytest.raises(PiggybackError) as caught:
        in_process(add_on_a_full_disk, bank.path)
    assert str(caught.value) == (
        f"{bank.path}/tasks/0004-winter.safetensors can't be written: File too large; "
        "what was there is unchanged"
    )
    assert contents(bank.path) == before


@pytest.fixture
def read_only_bank(template: Path) -> Iterator[Path]:
    """A bank that others may read; they can't reach `tmp_path`."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    path = shutil.copytree(template, folder / "bank")
    for part in (*path.rglob("*"), path):
        part.chmod(0o555 if part.is_dir() else 0o444)
    yield path
    for part in (path, path / "tasks"):
        part.chmod(0o755)
    shutil.rmtree(folder)


def use_as_nobody(path: Path) -> list[str]:
    """Read a bank, then try to write it in all ways, with and without asking for the lock."""
    network().add_task("warm-up")
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    bank = Bank.open(path)
    assert [f.problem for f in bank.verify()] == [None] * 3
    bank.translate("night", images(9, 7))
    state = learn(bank.network(), "winter")
    messages = []
    for write in (
        lambda: bank.writing("test").__enter__(),
        lambda: bank.add(state, {}),
        lambda: bank.remove("sketch"),
    ):
        try:
            write()
        except PiggybackError as error:
            messages.append(str(error))
    return messages


def test_a_read_only_bank_can_be_read_and_refuses_writers_in_one_line(read_only_bank: Path) -> None:
    before = contents(read_only_bank)
    assert in_process(use_as_nobody, read_only_bank) == [
        f"{read_only_bank} can't be written to: Permission denied",
        f"{read_only_bank / 'tasks'} can't be written to: Permission denied",
        f"{read_only_bank / 'bank.json'} can't be written: Permission denied; what was there is unchanged",
    ]
    assert contents(read_only_bank) == before


# --- pbgan tasks, pbgan remove ---


def test_pbgan_tasks_lists_the_tasks_in_order_with_what_they_cost(bank: Bank) -> None:
    listed = pbgan("tasks", bank.path)
    assert (listed.returncode, listed.stderr) == (0, "")
    rows = [
        [cell.strip() for cell in line.split("  ") if cell.strip()]
        for line in listed.stdout.splitlines()
        if "paired" in line
    ]
    learner = bank.network()
    expected = []
    for entry, unconstrained in zip(bank.entries, ("1", "0.25", "per layer"), strict=True):
        count = learner.parameter_count(entry.name)
        added = entry.added[:16].replace("T", " ")
        numbers = (f"{count.total:,}", f"{count.share:.3f}", f"{entry.bytes:,}")
        expected.append([entry.name, added, "paired", "64 px", unconstrained, *numbers])
    assert rows == expected
    assert [row[0] for row in rows] == ["maps", "night", "sketch"]


def test_pbgan_tasks_json_says_the_same_and_all_of_the_cards(bank: Bank) -> None:
    said = pbgan("tasks", bank.path, "--json")
    assert (said.returncode, said.stderr) == (0, "")
    listed = json.loads(said.stdout)
    assert listed["architecture"]["generator"]["name"] == CONFIG.name
    learner = bank.network()
    assert [row["task"] for row in listed["tasks"]] == list(LAMBDAS)
    for row, entry in zip(listed["tasks"], bank.entries, strict=True):
        count = learner.parameter_count(entry.name)
        assert row == {
            "task": entry.name,
            "added": entry.added,
            "mode": "paired",
            "image_size": 64,
            "unconstrained": LAMBDAS[entry.name],
            "parameters": count.total,
            "share": count.share,
            "bytes": file_of(bank, entry.name).stat().st_size,
            "file": entry.file,
            "sha256": entry.sha256,
            "card": bank.card(entry.name).to_json(),
        }


def test_pbgan_tasks_cuts_nothing_off_where_lines_are_short(bank: Bank) -> None:
    said = pbgan("tasks", bank.path, columns=80).stdout
    assert "…" not in said
    for entry in bank.entries:
        assert f"{entry.bytes:,}" in said


def test_pbgan_tasks_says_in_one_line_that_a_card_is_damaged(bank: Bank) -> None:
    path = file_of(bank, "night")
    path.write_bytes(path.read_bytes().replace(b'\\"mode\\"', b'\\"mnde\\"'))
    said = pbgan("tasks", bank.path)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("pbgan: error: ")
    assert said.stderr.count("\n") == 1


def test_pbgan_remove_takes_the_newest_task_only_and_only_when_told_to(bank: Bank) -> None:
    before = contents(bank.path)
    said = pbgan("remove", bank.path, "maps", "--yes")
    assert (said.returncode, said.stdout) == (2, "")
    assert "'maps' can't be removed: night, sketch came later" in said.stderr
    said = pbgan("remove", bank.path, "sketch")
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == "pbgan: error: removing 'sketch' can't be undone: give --yes\n"
    assert contents(bank.path) == before
    assert pbgan("remove", bank.path, "sketch", "--yes").returncode == 0
    assert Bank.open(bank.path).tasks == ("maps", "night")
    assert faults(bank) == {}
    assert before.keys() - contents(bank.path).keys() == {"tasks/0003-sketch.safetensors"}


def test_a_removed_task_can_be_learned_again_with_other_filters(bank: Bank) -> None:
    before = bank.translate("sketch", images(9, 7))
    bank.remove("sketch")
    with pytest.raises(PiggybackError, match="no task 'sketch'"):
        bank.translate("sketch", images(9, 7))
    learner = bank.network()
    bank.add(learn(learner, "sketch", 0.75), card(learner, "sketch", 0.75))
    assert not torch.equal(bank.translate("sketch", images(9, 7)), before)
    assert faults(bank) == {}
