"""A tiny configuration of every architecture that transformers loads as a causal language model."""

from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

FAMILIES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
WIDTH, LAYERS, HEADS, CONTEXT, VOCABULARY = 32, 2, 4, 64, 300
# what configurations call the same thing, of one architecture or another
SMALL = {
    **dict.fromkeys(("vocab_size",), VOCABULARY),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("n_layer", "n_layers", "num_hidden_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("decoder_layers", "encoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), HEADS),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), HEADS),
    **dict.fromkeys(("intermediate_size", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_dim", "n_inner", "dff"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "context_length"), CONTEXT),
    **dict.fromkeys(("sliding_window", "window_size", "attention_window_size"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **{"num_key_value_heads": 2, "head_dim": 8, "d_kv": 8, "rotary_dim": 4, "state_size": 8, "lru_width": WIDTH},
    **{"moe_intermediate_size": 16, "num_experts_per_tok": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
LATENT = {  # keys and values from a compressed row (DeepSeek's attention)
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
    "v_head_dim": 8, "qk_head_dim": 12, "head_dim": 4, "n_group": 1, "topk_group": 1,
}  # fmt: skip
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_expand": 2}
OTHER = {
    "axk1": LATENT, "axk2": LATENT, "bailing_hybrid": LATENT, "deepseek_v3": LATENT,
    "deepseek_v32": LATENT, "glm_moe_dsa": LATENT, "longcat_flash": LATENT,
    "kimi_linear": LATENT | {"num_experts_per_token": 2},
    "minicpm3": LATENT, "youtu": LATENT,
    "bamba": MAMBA2 | {"attn_layer_indices": [1]},
    "granitemoehybrid": MAMBA2 | {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "xlstm": {"num_heads": 4, "qk_dim_factor": 0.5, "v_dim_factor": 1.0},
    "deepseek_v2": LATENT | {"topk_method": "greedy", "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "bloom": {"seq_length": CONTEXT},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "dots3_note": {"num_key_value_heads": 4}, "dots3_note_text": {"num_key_value_heads": 4},
    "hunyuan_v1_dense": {"head_dim": 8}, "hunyuan_v1_moe": {"head_dim": 8}, "ministral": {"head_dim": 8},
    "cohere_compass_text": {"layer_types": ["full_attention", "sliding_attention"]},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8], "is_decoder": True},
    "zamba": {"layer_types": None, "num_hidden_layers": 3, "attn_layer_period": 2, "attn_layer_offset": 1},
    "zamba2": {
        "layer_types": None, "num_hidden_layers": 3, "hybrid_layer_ids": [1],
        "layers_block_type": ["mamba", "hybrid", "mamba"],
    },
    "dots1": {"n_group": 1, "topk_group": 1, "n_routed_experts": 4, "num_experts_per_tok": 2},
    "zaya": {"num_experts_per_tok": 1},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "opt": {"ffn_dim": 64},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "gemma3n_text": {"num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma3n": {"num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"]},
}  # fmt: skip


NEVER_TINY = ("blt", "phi4_multimodal")


def config(family):
    """The configuration; raises whatever the class does when the settings above do not suit it.

    NotImplementedError for models of several parts, of which language is one, and for those that are never tiny.
    """
    base = CONFIG_MAPPING[family]()
    if family in NEVER_TINY or base.get_text_config() is not base:
        raise NotImplementedError(family)
    names, given = base.to_dict(), OTHER.get(family, {})
    settings = {
        k: v for k, v in SMALL.items() if names.get(k) is not None or (k == "num_key_value_heads" and k in names)
    }
    if kinds := names.get("layer_types"):
        kinds = list(dict.fromkeys(kinds))
        settings["layer_types"] = (kinds * LAYERS)[:LAYERS] if len(kinds) < LAYERS else kinds[:LAYERS]
    if "is_decoder" in names:
        settings["is_decoder"] = True
    return type(base)(**{k: v for k, v in (settings | given).items() if v is not None})
