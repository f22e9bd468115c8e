"""Reading the fields of a Hugging Face `config.json`, as the families have them in common.

Both layouts are read: the one of transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`) and
the one of transformers 5 (`rope_parameters`, `dtype`). Absent optional fields take the values that
transformers gives them. A value that would change the results and is not supported is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dendrite_jax.models.config import Rope, RopeScaling

_DEFAULT_ROPE_THETA = 10000.0
_DTYPES = ("float32", "float16", "bfloat16")
_DEFAULT_WINDOW = 4096
_FULL, _SLIDING = "full_attention", "sliding_attention"


class ModelConfigError(ValueError):
    """A model configuration that is incomplete, inconsistent or not supported."""


class Fields:
    """The content of a `config.json`; a value that is wrong is named when it is read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def get(self, field: str, default: Any = None) -> Any:
        """The value as it is, `default` where the field is absent."""
        return self.values.get(field, default)

    def required(self, field: str) -> Any:
        if self.values.get(field) is None:
            raise ModelConfigError(f"{field} is missing")
        return self.values[field]

    def positive_int(self, field: str) -> int:
        value = self.required(field)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise ModelConfigError(f"{field} = {value!r}: expected an integer > 0")
        return value

    def positive_float(self, field: str) -> float:
        value = self.required(field)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise ModelConfigError(f"{field} = {value!r}: expected a number > 0")
        return float(value)

    def flag(self, field: str) -> bool:
        """A boolean, false where it is absent."""
        value = self.get(field, False)
        if not isinstance(value, bool):
            raise ModelConfigError(f"{field} = {value!r}: expected true or false")
        return value

    def kv_heads(self, heads: int) -> int:
        """`num_key_value_heads`, which divides the number of heads."""
        kv_heads = self.positive_int("num_key_value_heads")
        if heads % kv_heads:
            raise ModelConfigError(
                f"num_attention_heads = {heads} is not a multiple of "
                f"num_key_value_heads = {kv_heads}"
            )
        return kv_heads

    def head_dim(self, default: int | None = None) -> int:
        """`head_dim`; where it is absent `default`, or the hidden size over the heads."""
        hidden_size = self.positive_int("hidden_size")
        heads = self.positive_int("num_attention_heads")
        if self.get("head_dim") is not None:
            head_dim = self.positive_int("head_dim")
        elif default is not None:
            head_dim = default
        elif hidden_size % heads:
            raise ModelConfigError(
                f"head_dim is missing and hidden_size = {hidden_size} is not a multiple of "
                f"num_attention_heads = {heads}"
            )
        else:
            head_dim = hidden_size // heads
        if head_dim % 2:
            raise ModelConfigError(f"head_dim = {head_dim}: rotary embedding needs an even number")
        return head_dim

    def dtype(self) -> str:
        """The dtype that the checkpoint says its weights have; float32 where it says none."""
        field = "dtype" if self.get("dtype") is not None else "torch_dtype"
        value = self.get(field) if self.get(field) is not None else "float32"
        name = value.removeprefix("torch.") if isinstance(value, str) else value
        if name not in _DTYPES:
            raise ModelConfigError(
                f"{field} = {value!r} is not supported; supported: {', '.join(_DTYPES)}"
            )
        return name

    def rope(self) -> Rope:
        """The base of the rotary embedding and its rescaling, from either layout."""
        field = "rope_scaling" if self.get("rope_scaling") else "rope_parameters"
        values = self.get(field) or {}
        if not isinstance(values, Mapping):
            raise ModelConfigError(f"{field} = {values!r}: expected an object")
        if any(isinstance(value, Mapping) for value in values.values()):
            raise ModelConfigError(
                f"{field} differs by kind of layer ({', '.join(values)}): not supported; "
                "supported: one set of values for all layers"
            )
        rope = Fields(values)
        if self.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0)) != 1.0:
            raise ModelConfigError("partial_rotary_factor is set: only 1.0 is supported")

        theta = _DEFAULT_ROPE_THETA
        if "rope_theta" in values:
            theta = rope.positive_float("rope_theta")
        elif self.get("rope_theta") is not None:
            theta = self.positive_float("rope_theta")

        rope_type = rope.get("rope_type", rope.get("type", "default"))
        if rope_type == "default":
            return Rope(theta)
        if rope_type != "llama3":
            raise ModelConfigError(
                f"{field}.rope_type = {rope_type!r} is not supported; "
                "supported: 'default', 'llama3'"
            )
        return Rope(theta, _llama3_scaling(rope))

    def window(self) -> int | None:
        """`sliding_window` in tokens; 4096 where it is absent, None where it is null."""
        if "sliding_window" not in self.values:
            return _DEFAULT_WINDOW
        return None if self.get("sliding_window") is None else self.positive_int("sliding_window")

    def layer_windows(self, window: int | None, first: int) -> tuple[int | None, ...]:
        """The window of each layer, by `layer_types`.

        Args:
          window: of the layers that have one; None where no layer may have any.
          first: without `layer_types`, layers from this one on have it.
        """
        layers = self.positive_int("num_hidden_layers")
        sliding = [window is not None and layer >= first for layer in range(layers)]
        types = self.get("layer_types")
        if types is not None:
            _check_layer_types(types, layers, window)
            sliding = [kind == _SLIDING for kind in types]
        return tuple(window if slides else None for slides in sliding)


def _llama3_scaling(rope: Fields) -> RopeScaling:
    scaling = RopeScaling(
        factor=rope.positive_float("factor"),
        low_freq_factor=rope.positive_float("low_freq_factor"),
        high_freq_factor=rope.positive_float("high_freq_factor"),
        original_max_position=rope.positive_int("original_max_position_embeddings"),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise ModelConfigError(
            f"high_freq_factor = {scaling.high_freq_factor} must be greater than "
            f"low_freq_factor = {scaling.low_freq_factor}"
        )
    return scaling


def _check_layer_types(types: Any, num_layers: int, window: int | None) -> None:
    if not isinstance(types, list) or len(types) != num_layers:
        raise ModelConfigError(
            f"layer_types = {types!r}: expected a list of num_hidden_layers = {num_layers} names"
        )
    for kind in types:
        if kind not in (_FULL, _SLIDING):
            raise ModelConfigError(
                f"layer_types has {kind!r}, which is not supported; "
                f"supported: {_FULL!r}, {_SLIDING!r}"
            )
    if window is None and _SLIDING in types:
        raise ModelConfigError(f"layer_types has {_SLIDING!r} but no sliding_window is in use")
