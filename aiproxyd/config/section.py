"""What the sections of the configuration have in common: frozen, strict, documented. No section is here."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def restart(default: Any, **kwargs: Any) -> Any:
    """Return a field that is read once, at start."""
    return Field(default, json_schema_extra={"reload": "restart"}, **kwargs)


class Section(BaseModel):
    """A part of the configuration."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
