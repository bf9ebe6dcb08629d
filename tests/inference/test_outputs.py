"""Claims about planned outputs: names and suffixes, trees of folders, and what is refused before anything is written."""

from pathlib import Path

from data_sets import refusal
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.inference.outputs import plan_outputs
from piggyback_gan.system.launch import Place
from translated import files


def plan(*inputs: Path, out: Path, **flags: bool) -> list[tuple[str, str]]:
    planned = plan_outputs(inputs, out, **flags)
    assert all(outcome.problem is None for outcome in planned)
    assert all(outcome.output.parent == out for outcome in planned)
    return [(outcome.source.name, outcome.output.name) for outcome in planned]


def test_outputs_keep_their_names_and_become_png_or_stay_what_they_are(tmp_path: Path) -> None:
    folder, out = files(tmp_path / "in", "b.v2.jpg", "a.webp", "c.PNG"), tmp_path / "out"
    single = files(tmp_path, "d.bmp") / "d.bmp"
    names = ["a.webp", "b.v2.jpg", "c.PNG", "d.bmp"]
    assert plan(folder, single, out=out) == list(
        zip(names, ["a.png", "b.v2.png", "c.png", "d.png"], strict=True)
    )
    assert plan(folder, single, out=out, same_format=True) == list(zip(names, names, strict=True))
    assert not out.exists()


def test_two_inputs_for_one_output_are_refused(tmp_path: Path) -> None:
    first, second = files(tmp_path / "x", "a.jpg"), files(tmp_path / "y", "a.png")
    out = tmp_path / "out"
    message = refusal(lambda: plan(first, second, out=out))
    assert f"{first / 'a.jpg'} and {second / 'a.png'} would both become {out / 'a.png'}" in message
    assert len(plan(first, second, out=out, same_format=True)) == 2
    assert len(plan(first, first / "a.jpg", out=out)) == 1, "the same file twice is one input"


def test_existing_outputs_are_refused_without_overwrite(tmp_path: Path) -> None:
    folder = files(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    out = files(tmp_path / "out", "b.png", "c.png")
    message = refusal(lambda: plan(folder, out=out))
    assert message.startswith(f"2 outputs exist, the first is {out / 'b.png'}: ")
    assert "--overwrite" in message
    assert len(plan(folder, out=out, overwrite=True)) == 3
    assert len(plan(folder, out=out, same_format=True)) == 3


def test_outputs_that_would_replace_their_inputs_are_refused(tmp_path: Path) -> None:
    folder = files(tmp_path, "a.jpg")
    assert "a.jpg is an input" in refusal(lambda: plan(folder, out=folder, same_format=True))
    assert plan(folder, out=folder) == [("a.jpg", "a.png")]


def test_missing_inputs_other_files_and_empty_folders_are_refused(tmp_path: Path) -> None:
    good = files(tmp_path / "in", "a.jpg")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    for name, words in {
        "nowhere.png": "no such file or folder",
        "notes.txt": "not an image; known are .jpg",
        "empty": "there are no images in this folder",
    }.items():
        message = refusal(lambda name=name: plan(good, tmp_path / name, out=tmp_path / "out"))
        assert message.startswith(f"{tmp_path / name}: {words}")


def test_a_tree_of_folders_is_kept_and_links_that_go_round_end(tmp_path: Path) -> None:
    folder = files(tmp_path / "in", "a.png", "day/a.png", "day/dusk/b.JPG")
    (folder / "day" / "round").symlink_to(folder, target_is_directory=True)
    (folder / "self.png").symlink_to(folder / "self.png")
    out = tmp_path / "out"
    planned = plan_outputs([folder], out, recursive=True)
    outputs = {str(o.output.relative_to(out)) for o in planned}
    assert outputs == {"a.png", "self.png", "day/a.png", "day/dusk/b.png"}
    flat = plan_outputs([folder], out)
    assert {o.source.name for o in flat} == {"a.png", "self.png"}


def test_outputs_within_an_input_folder_are_not_inputs_the_next_time(tmp_path: Path) -> None:
    folder = files(tmp_path, "a.jpg", "out/a.png", "out/deep/b.png")
    planned = plan_outputs([folder], folder / "out", overwrite=True, recursive=True)
    assert [(o.source, o.output) for o in planned] == [(folder / "a.jpg", folder / "out" / "a.png")]


def test_no_output_lies_outside_of_the_folder_for_them(tmp_path: Path) -> None:
    folder = files(tmp_path / "in", "sub/a.png")
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (out / "sub").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    message = refusal(lambda: plan_outputs([folder], out, overwrite=True, recursive=True))
    assert message == f"{out / 'sub'} is a link that leads out of {out}: give another --out"
    above = plan_outputs([out / ".." / "in" / "sub" / "a.png"], out, overwrite=True)
    assert [o.output for o in above] == [out / "a.png"]


def test_names_of_any_length_and_script_are_kept_or_refused_beforehand(tmp_path: Path) -> None:
    unicode = "é" * 60 + "猫"
    longest = "n" * 251
    folder = files(tmp_path / "in", f"{unicode}.png", f"{longest}.png")
    out = tmp_path / "out"
    assert {name for _, name in plan(folder, out=out)} == {f"{unicode}.png", f"{longest}.png"}
    files(folder, f"{'m' * 250}.webp")
    assert len(plan(folder, out=out)) == 3


def test_a_suffix_that_can_not_hold_the_outputs_is_refused_before_anything(tmp_path: Path) -> None:
    folder = files(tmp_path / "in", "a.png", "b.jpg")
    deep = ImageFormat(depth="uint16", low=0, high=65535)
    message = refusal(
        lambda: plan_outputs([folder], tmp_path / "out", same_format=True, output_format=deep)
    )
    assert message.startswith(f"{folder / 'b.jpg'}: .jpg files can't hold this task's outputs")
    assert ".png can: leave out --format same" in message


def test_processes_share_the_files_and_each_minds_its_own(tmp_path: Path) -> None:
    folder = files(tmp_path / "in", *(f"{i}.png" for i in range(5)))
    out = files(tmp_path / "out", "0.png", "2.png")

    def share(rank: int, inputs: Path = folder, out: Path = out) -> list[str]:
        place = Place(rank, 2, rank)
        return [o.source.name for o in plan_outputs([inputs], out, place=place)]

    assert share(1) == ["1.png", "3.png"]
    assert refusal(lambda: share(0)).startswith("2 outputs exist")
    assert "is an input" in refusal(lambda: share(0, folder, folder))
    jpgs = files(tmp_path / "jpgs", "a.jpg", "b.jpg")
    assert "several processes need another --out" in refusal(lambda: share(0, jpgs, jpgs))
