"""TOML files of training options."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from piggyback_gan.errors import PiggybackError
from piggyback_gan.options import GeneratorOptions, TrainingOptions


def read_options(path: Path) -> tuple[TrainingOptions, GeneratorOptions]:
    """Read options from a TOML file: the fields of both classes as keys, `unconstrained` also a table.

    Raises:
        PiggybackError: the file can't be read, has unknown keys, or a value that is not allowed.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PiggybackError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise PiggybackError(f"{path} is no valid TOML: {error}") from None
    names = {
        c: {f.name for f in dataclasses.fields(c)} for c in (TrainingOptions, GeneratorOptions)
    }
    known = sorted(set.union(*names.values()))
    if unknown := sorted(content.keys() - set(known)):
        raise PiggybackError(
            f"{path}: unknown options {', '.join(unknown)}; known: {', '.join(known)}"
        )

    def pick(wanted: set[str]) -> Mapping[str, Any]:
        return {key: value for key, value in content.items() if key in wanted}

    for field in ("input_range", "output_range", "augment_policy"):  # TOML has no tuples
        if isinstance(content.get(field), list):
            content[field] = tuple(content[field])
    try:
        options = TrainingOptions(**pick(names[TrainingOptions]))
        return options, GeneratorOptions(**pick(names[GeneratorOptions]))
    except (PiggybackError, TypeError) as error:
        raise PiggybackError(f"{path}: {error}") from None
