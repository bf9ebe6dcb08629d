"""Claims about the rank of a process, as the environment gives it."""

import pytest

from data_sets import refusal
from piggyback_gan.system.launch import Place, find_place


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Place(0, 1, 0)),
        ({"RANK": "1"}, Place(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Place(3, 4, 1)),
        ({"RANK": "2", "WORLD_SIZE": "2"}, None),
        ({"RANK": "one", "WORLD_SIZE": "2"}, None),
    ],
)
def test_a_process_finds_its_place_or_says_what_is_wrong_with_it(
    environment: dict[str, str], place: Place | None
) -> None:
    if place is None:
        assert "WORLD_SIZE=2" in refusal(lambda: find_place(environment))
    else:
        assert find_place(environment) == place
