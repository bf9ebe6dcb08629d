"""What the core needs: torch, numpy and safetensors, and nothing of the command line or of images."""

import subprocess
import sys
from dataclasses import fields
from typing import get_type_hints

import pytest

from piggyback_gan import FilterOptions, GeneratorOptions, TrainingOptions

OTHERS = "tyro", "PIL", "rich", "tifffile", "matplotlib", "torchmetrics", "filelock"


def test_the_core_does_not_import_what_the_command_line_and_images_need() -> None:
    program = (
        "import sys, piggyback_gan.core.network, piggyback_gan.core.factorize; "
        f"print([name for name in {OTHERS} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", [FilterOptions, TrainingOptions, GeneratorOptions])
def test_option_classes_have_plain_types(kind: type) -> None:
    hints = get_type_hints(kind, include_extras=True)
    assert {field.name for field in fields(kind)} <= hints.keys()
    assert not any("tyro" in str(hint) or "Annotated" in str(hint) for hint in hints.values())
