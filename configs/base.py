"""What all settings have in common: frozen, unknown keys are errors, field docstrings become descriptions."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen, and unknown keys are errors; field docstrings become descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
