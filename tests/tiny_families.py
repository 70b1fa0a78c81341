"""The families tiny models are made of: real keys of their config.json in a tiny shape, and their special tokens.

Knows no engine: only data.
"""

from __future__ import annotations

from typing import Any, NamedTuple

LLAMA_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
PHI3_SHAPE = LLAMA_SHAPE | {"num_key_value_heads": 4, "max_position_embeddings": 4096, "rope_scaling": None}


class Family(NamedTuple):
    """How a family's folder differs: its configuration, special tokens and kind of tokenizer."""

    config: dict[str, Any]
    specials: tuple[str, ...]
    eos: tuple[str, ...]
    """What ends an answer; the first is the tokenizer's own."""
    bos: str = ""
    adds_bos: bool = False
    is_sentencepiece: bool = False
    prepends_space: bool = False
    layers_key: str = "num_hidden_layers"


CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN = (*CHATML, "<think>", "</think>", "<tool_call>", "</tool_call>")
PHI3 = ("<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
LLAMA3 = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
)
HARMONY = (
    *("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>"),
    *("<|start|>", "<|end|>", "<|message|>", "<|call|>"),
)
GEMMA = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
MISTRAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]")
DEEPSEEK = (
    "<\uff5cbegin▁of▁sentence\uff5c>",
    "<\uff5cend▁of▁sentence\uff5c>",
    "<\uff5cUser\uff5c>",
    "<\uff5cAssistant\uff5c>",
)


def _phi3(config: dict[str, Any]) -> Family:
    eos = ("<|endoftext|>", "<|end|>", "<|assistant|>")
    return Family(config, PHI3, eos, "<s>", is_sentencepiece=True, prepends_space=True)


SHAPES: dict[str, Family] = {
    "phi3": _phi3(PHI3_SHAPE | {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}),
    "phi3-128k": _phi3(
        PHI3_SHAPE
        | {
            "model_type": "phi3",
            "architectures": ["Phi3ForCausalLM"],
            "max_position_embeddings": 2048,
            "original_max_position_embeddings": 64,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0 + 0.05 * index for index in range(8)],
                "long_factor": [1.0 + 2.0 * index for index in range(8)],
            },
        }
    ),
    "gptj": Family(
        {
            "model_type": "gptj",
            "architectures": ["GPTJForCausalLM"],
            "n_embd": 64,
            "n_head": 4,
            "n_inner": None,
            "n_positions": 2048,
            "rotary_dim": 8,
            "layer_norm_epsilon": 1e-5,
        },
        ("<|endoftext|>",),
        ("<|endoftext|>",),
        "<|endoftext|>",
        layers_key="n_layer",
    ),
    "gpt_neox": Family(
        {
            "model_type": "gpt_neox",
            "architectures": ["GPTNeoXForCausalLM"],
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_attention_heads": 4,
            "max_position_embeddings": 2048,
            "layer_norm_eps": 1e-5,
            "rotary_emb_base": 10000,
            "rotary_pct": 0.25,
            "use_parallel_residual": True,
        },
        ("<|endoftext|>", "<|padding|>"),
        ("<|endoftext|>",),
        "<|endoftext|>",
    ),
    "gpt_oss": Family(
        {
            "model_type": "gpt_oss",
            "architectures": ["GptOssForCausalLM"],
            "hidden_size": 64,
            "intermediate_size": 64,
            "head_dim": 16,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "rms_norm_eps": 1e-5,
            "sliding_window": 16,
            "rope_theta": 150000,
            "max_position_embeddings": 4096,
            "initial_context_length": 128,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 32.0,
                "original_max_position_embeddings": 128,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
            },
        },
        HARMONY,
        ("<|return|>", "<|endoftext|>", "<|call|>"),
        "<|startoftext|>",
    ),
    "llama": Family(
        LLAMA_SHAPE
        | {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "rope_theta": 500000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 256,
            },
        },
        LLAMA3,
        ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"),
        "<|begin_of_text|>",
        adds_bos=True,
    ),
    "qwen2": Family(
        LLAMA_SHAPE | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "sliding_window": 2048},
        QWEN,
        ("<|im_end|>", "<|endoftext|>"),
    ),
    "qwen3": Family(
        LLAMA_SHAPE | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 16},
        QWEN,
        ("<|im_end|>", "<|endoftext|>"),
    ),
    "gemma3": Family(
        {
            "model_type": "gemma3_text",
            "architectures": ["Gemma3ForCausalLM"],
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "rms_norm_eps": 1e-6,
            "sliding_window": 16,
            "sliding_window_pattern": 2,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
        },
        GEMMA,
        ("<eos>", "<end_of_turn>"),
        "<bos>",
        adds_bos=True,
        is_sentencepiece=True,
    ),
    "mistral": Family(
        LLAMA_SHAPE
        | {
            "model_type": "mistral",
            "architectures": ["MistralForCausalLM"],
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        MISTRAL,
        ("</s>",),
        "<s>",
        adds_bos=True,
        is_sentencepiece=True,
        prepends_space=True,
    ),
    "smollm": Family(
        LLAMA_SHAPE
        | {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "hidden_size": 96,
            "rope_interleaved": False,
            "tie_word_embeddings": True,
        },
        CHATML,
        ("<|im_end|>", "<|endoftext|>"),
        "<|im_start|>",
    ),
    "mamba2": Family(
        {
            "model_type": "mamba2",
            "architectures": ["Mamba2ForCausalLM"],
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 8,
            "head_dim": 16,
            "state_size": 16,
            "layer_norm_epsilon": 1e-5,
            "conv_kernel": 4,
            "n_groups": 1,
            "use_bias": False,
            "use_conv_bias": True,
            "tie_word_embeddings": False,
            "time_step_limit": [0.0, {"__float__": "Infinity"}],
            "time_step_rank": "auto",
        },
        ("<|endoftext|>",),
        ("<|endoftext|>",),
    ),
    "qwen3_next": Family(
        LLAMA_SHAPE
        | {
            "model_type": "qwen3_next",
            "architectures": ["Qwen3NextForCausalLM"],
            "head_dim": 16,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 32,
            "linear_conv_kernel_dim": 4,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "decoder_sparse_step": 1,
            "shared_expert_intermediate_size": 64,
            "moe_intermediate_size": 64,
            "mlp_only_layers": [],
            "partial_rotary_factor": 0.5,
            "full_attention_interval": 2,
            "norm_topk_prob": True,
        },
        QWEN,
        ("<|im_end|>", "<|endoftext|>"),
    ),
    "deepseek_v3": Family(
        {
            "model_type": "deepseek_v3",
            "architectures": ["DeepseekV3ForCausalLM"],
            "hidden_size": 64,
            "intermediate_size": 96,
            "moe_intermediate_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "n_shared_experts": None,
            "n_routed_experts": None,
            "kv_lora_rank": 32,
            "q_lora_rank": 32,
            "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 16,
            "v_head_dim": 32,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "rope_scaling": None,
            "max_position_embeddings": 2048,
        },
        DEEPSEEK,
        ("<\uff5cend▁of▁sentence\uff5c>",),
        "<\uff5cbegin▁of▁sentence\uff5c>",
        adds_bos=True,
    ),
}
