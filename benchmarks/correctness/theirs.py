"""Models of Hugging Face transformers, tiny and with random weights, through their documented arguments.

Padding goes in as `attention_mask` (with `position_ids` counted over the real tokens, as `generate` counts them, where
the model takes any), packed documents as what `DataCollatorWithFlattening` returns (`position_ids`, and `seq_idx`
where the model does not refuse it), a cache as the output's own.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
import transformers
from invariants import VOCAB

COMMON = {"vocab_size": VOCAB, "hidden_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 64}
MAMBA2_PARTS = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_chunk_size": 8}

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Llama": ("LlamaConfig", "LlamaForCausalLM", {**HEADS, "num_hidden_layers": 2}),
    "Mamba": ("MambaConfig", "MambaForCausalLM", {"num_hidden_layers": 2, "state_size": 8}),
    "Mamba2": (
        "Mamba2Config",
        "Mamba2ForCausalLM",
        {"num_hidden_layers": 2, "state_size": 16, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8},
    ),
    "FalconMamba": ("FalconMambaConfig", "FalconMambaForCausalLM", {"num_hidden_layers": 2, "state_size": 8}),
    "Jamba": (
        "JambaConfig",
        "JambaForCausalLM",
        {
            **HEADS,
            "num_hidden_layers": 4,
            "attn_layer_period": 4,
            "attn_layer_offset": 2,
            "num_experts": 1,
            "num_experts_per_tok": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
        },
    ),
    "Bamba": (
        "BambaConfig",
        "BambaForCausalLM",
        {**HEADS, **MAMBA2_PARTS, "num_hidden_layers": 3, "attn_layer_indices": [1]},
    ),
    "LFM2": (
        "Lfm2Config",
        "Lfm2ForCausalLM",
        {**HEADS, "num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]},
    ),
    "Qwen3Next": (
        "Qwen3NextConfig",
        "Qwen3NextForCausalLM",
        {
            **HEADS,
            "num_hidden_layers": 4,
            "head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "num_experts": 0,
            "mlp_only_layers": [0, 1, 2, 3],
        },
    ),
    "RWKV4": ("RwkvConfig", "RwkvForCausalLM", {"num_hidden_layers": 2, "attention_hidden_size": 32}),
    "xLSTM": (
        "xLSTMConfig",
        "xLSTMForCausalLM",
        {"hidden_size": 128, "num_blocks": 2, "num_hidden_layers": 2, "num_heads": 2, "chunk_size": 16},
    ),
}


class Refused(Exception):
    """The model raised an error of its own: better than a wrong answer."""


class Theirs:
    """One model; what it says of itself is asked of its signature."""

    def __init__(self, name: str) -> None:
        config, model, options = MODELS[name]
        torch.manual_seed(0)
        made = getattr(transformers, config)(**{**COMMON, **options})
        self.model = getattr(transformers, model)(made).eval()
        with torch.no_grad():
            for module in self.model.modules():
                # Fresh weights are so small that a model says nearly the same whatever it reads.
                if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
                    module.weight.mul_(4)
        self.takes = set(inspect.signature(self.model.forward).parameters)
        self.cache = next((n for n in ("past_key_values", "cache_params", "state") if n in self.takes), None)

    def _call(self, **arguments: Any) -> Any:
        with torch.no_grad():
            try:
                return self.model(**arguments)
            except Exception as error:
                raise Refused(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error

    def _arguments(self, tokens: np.ndarray, mask: Any) -> dict[str, Any]:
        found: dict[str, Any] = {"input_ids": torch.as_tensor(tokens)}
        if mask is not None:
            found["attention_mask"] = torch.as_tensor(mask).long()
            if "position_ids" in self.takes:
                places = found["attention_mask"].cumsum(-1) - 1
                found["position_ids"] = places.masked_fill(found["attention_mask"] == 0, 1)
        return found

    def logits(self, tokens: np.ndarray, mask: Any = None, documents: Any = None) -> np.ndarray:
        arguments = {**self._arguments(tokens, mask), "use_cache": False}
        if documents is None:
            return self._call(**arguments).logits.numpy()
        arguments["position_ids"] = torch.cat([torch.arange(n) for n in documents])[None]
        of = torch.repeat_interleave(torch.arange(len(documents)), torch.tensor(documents))[None].int()
        try:
            return self._call(**arguments, seq_idx=of).logits.numpy()
        except Refused:
            return self._call(**arguments).logits.numpy()

    def begin(self, tokens: np.ndarray, mask: Any = None) -> tuple[np.ndarray, Any]:
        seen = np.ones(tokens.shape, bool) if mask is None else mask
        out = self._call(**self._arguments(tokens, mask), use_cache=True)
        return out.logits.numpy(), (out[self.cache], seen)

    def go_on(self, tokens: np.ndarray, cache: Any) -> tuple[np.ndarray, Any]:
        past, seen = cache
        real = seen.sum(1)
        seen = np.concatenate([seen, np.ones(tokens.shape, bool)], axis=1)
        arguments: dict[str, Any] = {"input_ids": torch.as_tensor(tokens), self.cache: past, "use_cache": True}
        if "position_ids" in self.takes:  # those without attention get no mask after the prompt from `generate` either
            arguments["attention_mask"] = torch.as_tensor(seen).long()
            arguments["position_ids"] = torch.as_tensor(real[:, None] + np.arange(tokens.shape[1]))
        out = self._call(**arguments)
        return out.logits.numpy(), (out[self.cache], seen)

    def gradients(self, tokens: np.ndarray, labels: np.ndarray, micro: int) -> dict[str, np.ndarray]:
        # As its Trainer does it: the count of all labels where the model takes loss arguments, else a mean of means.
        given = any(p.kind == inspect.Parameter.VAR_KEYWORD for p in _forward(self.model).values())
        given = getattr(self.model, "accepts_loss_kwargs", given)
        scored = int((labels[:, 1:] >= 0).sum())
        self.model.zero_grad()
        for x, y in zip(np.split(tokens, micro), np.split(labels, micro), strict=True):
            more = {"num_items_in_batch": scored} if given else {}
            out = self.model(input_ids=torch.as_tensor(x), labels=torch.as_tensor(y), use_cache=False, **more)
            (out.loss if given else out.loss / micro).backward()
        return {n: p.grad.double().numpy().copy() for n, p in self.model.named_parameters() if p.grad is not None}


def _forward(model: Any) -> Any:
    return inspect.signature(model.forward).parameters


def version() -> str:
    return f"transformers {transformers.__version__}, torch {torch.__version__}"
