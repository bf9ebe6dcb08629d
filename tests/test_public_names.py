"""What `piggyback_gan` exports."""

import ast
from importlib.metadata import version
from pathlib import Path
from typing import get_type_hints

import pytest

import piggyback_gan


@pytest.mark.parametrize("name", piggyback_gan._MODULES)
def test_public_names_can_be_imported_and_are_documented(name: str) -> None:
    value = getattr(piggyback_gan, name)
    assert (value.__doc__ or "")[:1].isupper()


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(piggyback_gan.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {
        alias.name: node.module
        for node in imports
        for alias in node.names
        if alias.asname is not None
    }
    assert seen == {n: f"piggyback_gan.{m}" for n, m in piggyback_gan._MODULES.items()}


def test_the_version_is_that_of_the_distribution() -> None:
    assert piggyback_gan.__version__ == version("piggyback-gan")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        piggyback_gan.nothing  # noqa: B018


@pytest.mark.parametrize("name", ["FilterOptions", "TrainingOptions", "GeneratorOptions"])
def test_option_classes_have_plain_types(name: str) -> None:
    hints = get_type_hints(getattr(piggyback_gan, name), include_extras=True)
    assert not any("tyro" in str(hint) or "Annotated" in str(hint) for hint in hints.values())


def test_every_hint_of_the_command_line_is_of_an_option() -> None:
    from piggyback_gan.cli.option_hints import _HINTS
    from piggyback_gan.serve.options import ServeOptions

    for name, hints in _HINTS.items():
        kind = ServeOptions if name == "ServeOptions" else getattr(piggyback_gan, name)
        assert hints.keys() <= kind.__dataclass_fields__.keys()
