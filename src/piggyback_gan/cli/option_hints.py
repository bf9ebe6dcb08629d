"""How the fields of option classes appear on the command line: metavars, default texts, hidden options.

Option classes are plain dataclasses that do not depend on tyro. `REGISTRY` adds these hints when tyro parses.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructTypeInfo,
)

from piggyback_gan.names import (
    DEFAULT_BANK_FILTERS,
    DEFAULT_BUDGET,
    DEFAULT_QUALITY,
    DEFAULT_RANK,
    DEFAULT_UNCONSTRAINED,
)
from piggyback_gan.networks.config import GENERATOR_NAMES


def default_hint(words: str, metavar: str | None = None) -> object:
    """What --help says in place of None, where no configuration file says otherwise."""

    def hint(default: str) -> str:
        return f"(default: {words if default == 'None' else default})"

    return tyro.conf.arg(help_behavior_hint=hint, metavar=metavar)


_JSON_TABLE: PrimitiveConstructorSpec[Mapping[str, Any] | None] = PrimitiveConstructorSpec(
    nargs=1,
    metavar="JSON",
    instance_from_str=lambda given: json.loads(given[0]),
    is_instance=lambda value: value is None or isinstance(value, Mapping),
    str_from_instance=lambda value: ["None" if value is None else json.dumps(value)],
)

# Options of training that are set in a TOML file only.
_HIDDEN = (
    *("decay_epochs", "load_size", "flip", "backward_learning_rate"),
    *("discriminator_learning_rate", "beta1", "gan_loss", "l1_weight", "cycle_weight", "pool_size"),
    *("augment_policy", "discriminator", "discriminator_layers", "ndf", "discriminator_norm"),
    *("discriminator_init", "samples"),
)

_HINTS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "FilterOptions": {
        "budget": (default_hint(f"{DEFAULT_BUDGET:g}", "{FLOAT,auto}"),),
        "quality": (default_hint(f"{DEFAULT_QUALITY:g} with --budget auto", "FLOAT"),),
        "unconstrained": (
            tyro.conf.arg(
                constructor=float,
                metavar="FLOAT",
                help_behavior_hint=lambda given: "" if "None" in given else f"(default: {given})",
            ),
        ),
        "mixing": (
            default_hint("low-rank; with --unconstrained full", "{full,low-rank,selected}"),
        ),
        "rank": (default_hint(f"by the budget; else {DEFAULT_RANK}", "INT"),),
        "bank_filters": (default_hint(f"by the budget; else {DEFAULT_BANK_FILTERS}", "INT"),),
        "init": (default_hint("auto", "TASK"),),
        "learn": (
            default_hint(
                "free; with --unconstrained, selected mixing or even allocation mixed",
                "{free,mixed}",
            ),
        ),
        "free_share": (tyro.conf.Suppress,),
        "pull_share": (tyro.conf.Suppress,),
        "factorized_rate": (tyro.conf.Suppress,),
        "start_noise": (tyro.conf.Suppress,),
    },
    "TrainingOptions": {
        "learning_rate": (default_hint("2e-4 for a first task, 1e-3 for later ones", "FLOAT"),),
        "identity_weight": (default_hint("5; 0 if the sides' channels differ", "FLOAT"),),
        "keep_best": (default_hint("the last epoch is kept", "METRIC"),),
        "patience": (default_hint("never", "EPOCHS"),),
        "input_channels": (default_hint("as the files have", "INT"),),
        "output_channels": (default_hint("as the files have", "INT"),),
        "input_labels": (default_hint("images", "CLASSES"),),
        "input_range": (default_hint("all", "LOW HIGH"),),
        "output_range": (default_hint("all", "LOW HIGH"),),
        **dict.fromkeys(_HIDDEN, (tyro.conf.Suppress,)),
    },
    "GeneratorOptions": {
        "generator": (
            default_hint(
                "resnet-9, under 256 px resnet-6",
                f"{{{','.join(GENERATOR_NAMES)},MODULE:CALLABLE}}",
            ),
        ),
        "generator_arguments": (_JSON_TABLE, default_hint("none", "JSON")),
        "ngf": (default_hint("64", "INT"),),
        "norm": (default_hint("instance", "{instance,batch,none}"),),
        "dropout": (default_hint("False", "{True,False}"),),
        "antialias": (default_hint("none", "{none,down,up,both}"),),
        "weight_init": (default_hint("normal", "{normal,xavier,kaiming,orthogonal}"),),
    },
    "ServeOptions": {
        "batch_wait": (tyro.conf.arg(metavar="MS"),),
        "max_bytes": (tyro.conf.arg(metavar="BYTES"),),
        "max_pixels": (tyro.conf.arg(metavar="N"),),
        "whole_pixels": (tyro.conf.arg(metavar="N"),),
        "timeout": (tyro.conf.arg(metavar="SECONDS"),),
        "token_file": (tyro.conf.arg(metavar="FILE", help_behavior_hint=""),),
        "allowed_hosts": (tyro.conf.arg(metavar="NAME...", help_behavior_hint=""),),
        "samples": (tyro.conf.arg(metavar="DIR", help_behavior_hint=""),),
        "training_samples": (tyro.conf.Suppress,),
    },
    "ImportOptions": {
        "unconstrained": (default_hint(f"{DEFAULT_UNCONSTRAINED:g}", "FLOAT"),),
        "max_error": (tyro.conf.arg(metavar="FLOAT", help_behavior_hint=""),),
        "finetune": (tyro.conf.arg(metavar="STEPS"),),
        "image_size": (default_hint("as train_opt.txt says, else 256 or a U-Net's", "INT"),),
    },
}
"""Name of an option class -> field -> what tyro finds in the field's `Annotated` type."""

REGISTRY = ConstructorRegistry()
_expanding: set[type] = set()


@REGISTRY.struct_rule
def _with_hints(info: StructTypeInfo) -> StructConstructorSpec | None:
    """tyro's own description of an option class, with the hints of the class and its bases."""
    hints: dict[str, tuple[Any, ...]] = {}
    for base in getattr(info.type, "__mro__", ()):
        hints |= _HINTS.get(base.__name__, {})
    if not hints or info.type in _expanding:
        return None
    _expanding.add(info.type)
    try:
        spec = ConstructorRegistry.get_struct_spec(info)
    finally:
        _expanding.remove(info.type)
    assert isinstance(spec, StructConstructorSpec)
    fields = (
        replace(field, type=Annotated[(field.type, *hints[field.name])])  # type: ignore[arg-type]
        if field.name in hints
        else field
        for field in spec.fields
    )
    return replace(spec, fields=tuple(fields))
