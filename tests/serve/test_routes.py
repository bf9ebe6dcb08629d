"""Responses of a served bank: tasks, translations, formats, several files, new tasks, metrics."""

import email
import email.policy
import io
import json
import shutil
import zipfile
from email.message import EmailMessage
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from banks import card, evenly
from exports import bank_of
from piggyback_gan import Bank, Tiling
from piggyback_gan.images.encode import encode
from piggyback_gan.images.format import ImageFormat
from served import Answer, Served, png, serving

DEEP = ImageFormat(channels=1, depth="uint16", high=65535.0)
FLOATS = ImageFormat(channels=2, depth="float32", low=-1.0, high=1.0)
LABELS = ImageFormat(channels=5, labels=True)


def picture(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def parts_of(answer: Answer) -> list[EmailMessage]:
    """The parts of a form."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.content, policy=email.policy.HTTP)
    return list(message.iter_parts())


def fields_of(answer: Answer) -> dict[str, EmailMessage]:
    """The parts of a form, by field."""
    return {part.get_param("name", header="content-disposition"): part for part in parts_of(answer)}


def test_tasks_are_listed_with_what_they_take_and_give(unpaired_bank: Bank, served: Served) -> None:
    listed = served.ask("/v1/tasks").json
    assert [task["name"] for task in listed["tasks"]] == list(unpaired_bank.tasks)
    first = listed["tasks"][0]
    assert first["sha256"] == unpaired_bank.entries[0].sha256
    assert first["mode"] == "unpaired" and first["image_size"] == 64
    assert [way["direction"] for way in first["directions"]] == ["AtoB", "BtoA"]
    assert first["directions"][0]["input"]["summary"] == "RGB 8 bit"
    assert first["directions"][0]["output_format"] == "png"
    assert listed["limits"]["max_bytes"] == 32 * 2**20


def test_an_unchanged_list_of_tasks_is_not_sent_again(served: Served) -> None:
    tag = served.ask("/v1/tasks").headers["etag"]
    again = served.ask("/v1/tasks", headers={"If-None-Match": tag})
    assert again.status == 304 and not again.content
    assert served.ask("/v1/tasks", headers={"If-None-Match": '"another"'}).status == 200


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_a_translation_has_the_same_pixels_as_the_banks(
    unpaired_bank: Bank, served: Served, direction: str
) -> None:
    answer = served.translate("second", png(37, 50), f"?direction={direction}")
    expected = unpaired_bank.translate("second", picture(png(37, 50)), direction=direction)
    assert np.array_equal(answer.pixels, np.asarray(expected))
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["pbgan-task-sha256"] == unpaired_bank.entries[1].sha256


def test_an_image_may_be_the_body_or_in_a_form(served: Served) -> None:
    raw = served.translate("first", png())
    posted = served.translate_files("first", ("holiday.jpeg.png", png()))
    assert np.array_equal(raw.pixels, posted.pixels)
    assert 'filename="holiday.jpeg.png"' in posted.headers["content-disposition"]


def test_names_with_any_letters_come_back_as_names_only(served: Served) -> None:
    answer = served.translate_files("first", ("..\\..\\e\u0301t/\u00e9 \u2603.jpg", png()))
    assert answer.headers["content-disposition"] == (
        "inline; filename=\"_ _.png\"; filename*=UTF-8''%C3%A9%20%E2%98%83.png"
    )


@pytest.mark.parametrize(
    ("format", "kind"),
    [("png", "PNG"), ("tif", "TIFF"), ("webp", "WEBP"), ("jpg", "JPEG"), ("bmp", "BMP")],
)
def test_the_output_has_the_format_asked_for(served: Served, format: str, kind: str) -> None:
    answer = served.translate("first", png(), f"?format={format}")
    assert picture(answer.content).format == kind
    assert picture(answer.content).size == (30, 20)


def test_large_images_go_in_tiles_that_agree(bank: Bank) -> None:
    tiling = Tiling(tile=28, overlap=7, norm_from="image", sample_pixels=900)
    with serving(bank.path, whole_pixels=900) as served:
        answer = served.translate("second", png(50, 61))
        expected = bank.translate("second", picture(png(50, 61)), tiling=tiling)
        assert np.array_equal(answer.pixels, np.asarray(expected))
        asked = served.translate("second", png(50, 61), "?tile=28&overlap=7&norm_from=image")
        assert asked.content == answer.content
        refused = served.translate("second", png(50, 61), "?tile=0")
        assert refused.status == 413 and refused.problem == "too-many-pixels"


def test_tiles_are_those_that_were_asked_for(unpaired_bank: Bank, served: Served) -> None:
    answer = served.translate("first", png(50, 61), "?tile=32&overlap=8&norm_from=image")
    tiling = Tiling(tile=32, overlap=8, norm_from="image")
    expected = unpaired_bank.translate("first", picture(png(50, 61)), tiling=tiling)
    assert np.array_equal(answer.pixels, np.asarray(expected))


def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path) -> None:
    bank = bank_of(tmp_path / "bank", formats=(DEEP, DEEP))
    values = np.random.default_rng(1).integers(0, 65536, (20, 24, 1)).astype(np.uint16)
    with serving(bank.path, max_batch=1) as served:
        answer = served.translate("second", encode(values, ".png"))
        views = served.translate("second", encode(values, ".png"), "?views=true")
    made = np.asarray(picture(answer.content))
    assert made.dtype == np.uint16 and len(np.unique(made)) > 256
    expected = bank.translate("second", Image.fromarray(values[:, :, 0]))
    assert np.array_equal(made, np.asarray(expected))
    parts = fields_of(views)
    assert parts["output"].get_payload(decode=True) == answer.content
    assert picture(parts["input_view"].get_payload(decode=True)).mode == "RGB"


def test_what_png_cant_hold_comes_as_tiff(tmp_path: Path) -> None:
    bank = bank_of(tmp_path / "bank", formats=(LABELS, FLOATS))
    labels = np.arange(20 * 24, dtype=np.uint8).reshape(20, 24, 1) % 5
    with serving(bank.path) as served:
        answer = served.translate("first", encode(labels, ".png"))
        refused = served.translate("first", encode(labels, ".png"), "?format=png")
        wrong = served.translate("first", png())
    assert answer.headers["content-type"] == "image/tiff"
    made = tifffile.imread(io.BytesIO(answer.content))
    assert made.shape == (20, 24, 2) and made.dtype == np.float32
    assert refused.problem == "invalid-request" and "can't hold" in refused.json["detail"]
    assert wrong.problem == "wrong-image"


def test_views_are_pictures_to_look_at_beside_the_exact_output(served: Served) -> None:
    answer = served.translate_files("first", ("a.png", png()), query="?views=true")
    parts = fields_of(answer)
    assert sorted(parts) == ["input_view", "output", "output_view"]
    assert parts["output"].get_filename() == "a.png"
    shown = np.asarray(picture(parts["output_view"].get_payload(decode=True)))
    assert np.array_equal(shown, served.translate("first", png()).pixels)
    sent = np.asarray(picture(parts["input_view"].get_payload(decode=True)))
    assert np.array_equal(sent, np.asarray(picture(png())))


def test_several_files_come_back_as_a_zip_in_which_failures_are_told(served: Served) -> None:
    answer = served.translate_files(
        "first", ("a.jpg", png(seed=1)), ("b.png", b"no image"), ("A.bmp", png(16, 16))
    )
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["pbgan-failed"] == "1"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a.png", "b.png.problem.json", "A-2.png"]
        one = np.asarray(picture(archive.read("a.png")))
        assert json.loads(archive.read("b.png.problem.json"))["status"] == 422
    assert np.array_equal(one, served.translate("first", png(seed=1)).pixels)


def test_several_files_come_back_as_a_form_if_that_is_asked_for(served: Served) -> None:
    answer = served.translate_files(
        "first", ("a.png", png(seed=1)), ("b.png", png(seed=2)), Accept="multipart/form-data"
    )
    files = {part.get_filename(): part.get_payload(decode=True) for part in parts_of(answer)}
    assert list(files) == ["a.png", "b.png"]
    assert files["b.png"] == served.translate("first", png(seed=2)).content


def test_an_output_its_format_cant_hold_fails_alone_and_before_it_is_made(served: Served) -> None:
    long = png(1, 16_400)
    answer = served.translate_files(
        "first", ("a.png", png()), ("long.png", long), query="?format=webp"
    )
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["a.webp", "long.webp.problem.json"]
    alone = served.translate("first", long, "?format=webp")
    assert alone.problem == "invalid-request" and "can't hold" in alone.json["detail"]


def test_if_all_files_fail_for_what_the_server_is_that_is_told(copied_bank: Bank) -> None:
    with serving(copied_bank.path) as served:
        shutil.rmtree(copied_bank.path)
        answer = served.translate_files("first", ("a.png", png()), ("b.png", png()))
    assert (answer.status, answer.problem) == (500, "task-unreadable")


def test_if_all_files_fail_the_answer_is_a_problem(served: Served) -> None:
    answer = served.translate_files("first", ("a.png", b"x"), ("b.png", b"y"))
    assert answer.status == 422 and answer.problem == "none-translated"
    assert len(answer.json["problems"]) == 2


def test_a_task_that_is_learned_meanwhile_is_served_without_a_restart(copied_bank: Bank) -> None:
    with serving(copied_bank.path) as served:
        before = served.ask("/v1/tasks")
        assert served.translate("third", png()).problem == "unknown-task"
        learner = copied_bank.network()
        learner.add_task("third", evenly())
        learner.finish_task()
        about = card(learner, "third", 0.25)
        with copied_bank.writing("test"):
            copied_bank.add(learner.task_state("third"), about)
        assert served.translate("third", png()).status == 200
        after = served.ask("/v1/tasks", headers={"If-None-Match": before.headers["etag"]})
        assert [task["name"] for task in after.json["tasks"]] == ["first", "second", "third"]
        with copied_bank.writing("test"):
            copied_bank.remove("third")
        gone = served.translate("third", png())
        assert gone.status == 404 and gone.json["tasks"] == ["first", "second"]
        assert served.translate("second", png()).status == 200


def test_a_bank_that_gets_damaged_leaves_the_tasks_as_they_were(
    copied_bank: Bank, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(copied_bank.path) as served:
        (copied_bank.path / "bank.json").write_text("{")
        assert served.translate("first", png()).status == 200
        assert "its tasks stay as they were" in caplog.text
        shutil.rmtree(copied_bank.path)
        assert served.ask("/readyz").problem == "not-ready"
        assert served.translate("first", png()).status == 200  # it is in memory
        lost = served.translate("second", png())
        assert lost.status == 500 and lost.problem == "task-unreadable"
        assert (
            str(copied_bank.path) not in lost.content.decode()
            and str(copied_bank.path) in caplog.text
        )
        assert served.ask("/healthz").json == {"status": "ok"}


def test_samples_are_the_banks_or_of_the_folder_chosen(copied_bank: Bank, tmp_path: Path) -> None:
    copy = copied_bank.path
    (copy / "samples").mkdir()
    Image.new("RGB", (130, 64), "red").save(copy / "samples" / "first-1.png")
    chosen = tmp_path / "chosen" / "second"
    chosen.mkdir(parents=True)
    (chosen / "a.png").write_bytes(png(90, 80))
    with serving(copy, samples=tmp_path / "chosen") as served:
        has = [task["has_sample"] for task in served.ask("/v1/tasks").json["tasks"]]
        first, second = (served.ask(f"/v1/tasks/{task}/sample") for task in copied_bank.tasks)
    assert has == [True, True]
    assert first.pixels.shape == (64, 130, 3) and (first.pixels == [255, 0, 0]).all()
    assert second.pixels.shape == (64, 130, 3)


def test_a_trainings_pictures_are_for_its_owner_only(unpaired_bank: Bank, tmp_path: Path) -> None:
    copy = tmp_path / "bank"
    shutil.copytree(unpaired_bank.path, copy)
    folder = copy / "runs" / "first" / "samples"
    folder.mkdir(parents=True)
    sheet = Image.new("RGB", (6 * 66 - 2, 2 * 66 - 2), "white")
    sheet.paste("blue", (0, 0, 130, 64))
    sheet.save(folder / "epoch-0009.png")
    sheet.resize((60, 20)).save(folder / "epoch-0003.png")
    with serving(copy) as served:
        assert served.ask("/v1/tasks/first/sample").problem == "no-sample"
        assert not served.ask("/v1/tasks").json["tasks"][0]["has_sample"]
    with serving(copy, training_samples=True) as served:
        shown = served.ask("/v1/tasks/first/sample").pixels
        assert served.ask("/v1/tasks/second/sample").status == 404
    assert shown.shape == (64, 130, 3) and (shown == [0, 0, 255]).all()


def test_descriptions_and_licences_come_from_the_banks_notes(copied_bank: Bank) -> None:
    (copied_bank.path / "card.toml").write_text(
        'license = "mit"\n[tasks.first]\ndescription = "Maps."\n'
    )
    with serving(copied_bank.path) as served:
        first, second = served.ask("/v1/tasks").json["tasks"]
    assert (first["description"], first["license"]) == ("Maps.", "mit")
    assert (second["description"], second["license"]) == (None, "mit")


def test_what_is_said_of_a_task_may_change_while_it_is_served(copied_bank: Bank) -> None:
    with serving(copied_bank.path) as served:
        first = served.ask("/v1/tasks").json["tasks"][0]
        assert first["license"] is None and not first["has_sample"]
        assert served.ask("/v1/tasks/first/sample").problem == "no-sample"
        (copied_bank.path / "card.toml").write_text('license = "mit"\n')
        (copied_bank.path / "samples").mkdir()
        Image.new("RGB", (130, 64), "red").save(copied_bank.path / "samples" / "first-1.png")
        first = served.ask("/v1/tasks").json["tasks"][0]
        assert first["license"] == "mit" and first["has_sample"]
        assert served.ask("/v1/tasks/first/sample").pixels.shape == (64, 130, 3)


def test_metrics_tell_of_requests_batches_and_memory(bank: Bank) -> None:
    with serving(bank.path) as served:
        served.translate("first", png())
        served.translate("first", b"no image")
        served.translate("nobody", png())
        text = served.ask("/metrics").content.decode()
        assert 'pbgan_requests_total{status="200",task="first"} 1.0' in text
        assert 'pbgan_requests_total{status="422",task="first"} 1.0' in text
        assert 'pbgan_requests_total{status="404",task=""} 1.0' in text
        assert "nobody" not in text  # who asks must not make new series
        assert served.metric("pbgan_images_total") == 1
        assert served.metric("pbgan_request_seconds_count") == 3
        assert served.metric("pbgan_tasks") == 2
        assert served.metric("pbgan_tasks_in_memory") == 1
        weights = sum(p.nbytes for p in bank.generator("first").parameters())
        assert served.metric("pbgan_tasks_in_memory_bytes") >= weights
        assert served.metric("pbgan_queue_images") == 0


def test_openapi_describes_every_address_and_its_examples_are_valid(served: Served) -> None:
    schema = served.ask("/openapi.json").json
    assert set(schema["paths"]) == {
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/tasks",
        "/v1/tasks/{task}/sample",
        "/v1/tasks/{task}/translate",
    }
    translate = schema["paths"]["/v1/tasks/{task}/translate"]["post"]
    assert "multipart/form-data" in translate["requestBody"]["content"]
    for status, response in translate["responses"].items():
        for example in (
            response["content"].get("application/problem+json", {}).get("examples", {})
        ).values():
            assert example["value"]["status"] == int(status)


def test_the_page_and_its_files_are_served_with_no_leave_to_load_others(served: Served) -> None:
    page = served.ask("/")
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert served.ask("/page/page.js").headers["content-type"].startswith("text/javascript")
    assert served.ask("/page/../serve/app.py").problem == "not-found"
    assert served.ask("/page/%2e%2e/app.py").problem == "not-found"
