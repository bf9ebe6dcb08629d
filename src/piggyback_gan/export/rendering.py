"""Render the texts of an export from the templates in `templates/`."""

import json
from typing import Any

import jinja2


def rendered(template: str, **values: Any) -> str:
    """Render a template.

    Args:
        template: its name.
        values: its variables; a missing one is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("piggyback_gan.export"),
        autoescape=False,  # programs and configurations: what is put in is a literal of theirs
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["python"] = repr
    environment.filters["quoted"] = json.dumps
    environment.filters["number"] = lambda value: repr(int(value) if value == int(value) else value)
    return environment.get_template(template).render(**values)
