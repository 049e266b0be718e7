"""Model families: how a foreign checkpoint's config and tensors are named here, and back."""

from helix_plugin_huggingface.families.base import Family, Name
from helix_plugin_huggingface.families.fields import NEUTRAL, Fields
from helix_plugin_huggingface.families.mamba import FALCON_MAMBA, MAMBA
from helix_plugin_huggingface.families.mamba2 import MAMBA2
from helix_plugin_huggingface.families.qwen3_next import QWEN3_NEXT
from helix_plugin_huggingface.families.rwkv import RWKV
from helix_plugin_huggingface.families.state_spaces import STATE_SPACES

# Those of Hugging Face by their `model_type`.
FAMILIES: dict[str, Family] = {family.model_type: family for family in (MAMBA, FALCON_MAMBA, MAMBA2, RWKV, QWEN3_NEXT)}

__all__ = ["FAMILIES", "NEUTRAL", "STATE_SPACES", "Family", "Fields", "Name"]
