"""The keys of generation that are known, whether read, fixed or without effect."""

from collections.abc import Mapping

# What is read, with the defaults of transformers 4.57.
READ: Mapping[str, object] = {
    "num_beams": 1,
    "length_penalty": 1.0,
    "early_stopping": False,
    "max_length": 20,
    "max_new_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "renormalize_logits": False,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "decoder_start_token_id": None,
}
# What must be as it is where nobody asks for it.
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "num_beam_groups": (1, None),
    "diversity_penalty": (0.0, None),
    "constraints": (None,),
    "force_words_ids": (None,),
    "begin_suppress_tokens": (None, []),
    "sequence_bias": (None,),
    "encoder_no_repeat_ngram_size": (0, None),
    "encoder_repetition_penalty": (1.0, None),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1.0),
    "penalty_alpha": (None, 0.0),
    "prompt_lookup_num_tokens": (None,),
    "stop_strings": (None,),
    "max_time": (None,),
    "token_healing": (False,),
    "watermarking_config": (None,),
    "dola_layers": (None,),
    "assistant_early_exit": (None,),
}
NEUTRAL_IN_SAMPLING: Mapping[str, tuple[object, ...]] = {
    "min_p": (None, 0.0),
    "typical_p": (1.0, None),
    "epsilon_cutoff": (0.0, None),
    "eta_cutoff": (0.0, None),
    "num_beams": (1,),
}
HARMLESS = frozenset(
    {
        *("_commit_hash", "_from_model_config", "_original_object_hash"),
        *("assistant_confidence_threshold", "assistant_lookbehind", "cache_config"),
        *("cache_implementation", "compile_config", "disable_compile"),
        *("is_assistant", "low_memory", "max_matching_ngram_size"),
        *("num_assistant_tokens", "num_assistant_tokens_schedule"),
        *("num_return_sequences", "output_attentions", "output_hidden_states"),
        *("output_logits", "output_scores", "prefill_chunk_size"),
        *("remove_invalid_values", "return_dict_in_generate", "return_legacy_cache"),
        *("target_lookbehind", "transformers_version", "use_cache"),
    }
)
ENDS = ("eos_token_id", "decoder_start_token_id")  # of config.json if not here
KEYS = READ.keys() | NEUTRAL.keys() | NEUTRAL_IN_SAMPLING.keys() | HARMLESS
