"""What keys of usage count, in the spellings that providers, SDKs and tracing libraries send."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.values.usage_frame import TOKEN_CLASSES
from billing_core.values.usage_keys import KeyMeaning, read_key

SPELLINGS = {
    "total": """total total_tokens totalTokens totalTokenCount total_token_count TOTAL_TOKENS totaltokens tokens
        gen_ai.usage.total_tokens llm.token_count.total llm.usage.total_tokens""",
    "input": """input prompt_tokens promptTokens promptTokenCount prompt_token_count input_tokens inputTokens
        gen_ai.usage.input_tokens gen_ai.usage.prompt_tokens llm.token_count.prompt inputTextTokenCount request_tokens
        prompt_eval_count input_audio input_audio_tokens input_image_tokens input_text_tokens input_modality_1
        prompt_tokens_details.audio_tokens toolUsePromptTokenCount tool_use_prompt_token_count
        prompt_cache_miss_tokens uncached_input_tokens input_no_cache_tokens noCacheTokens total_input_tokens""",
    "output": """output completion_tokens completionTokens candidatesTokenCount candidates_token_count output_tokens
        outputTokenCount gen_ai.usage.output_tokens llm.token_count.completion response_tokens eval_count
        output_audio_tokens output_image_tokens completion_tokens_details.accepted_prediction_tokens
        rejected_prediction_tokens""",
    "cache_read": """cache_read_input_tokens input_cached_tokens cached_tokens cachedInputTokens cacheReadInputTokens
        cacheReadInputTokenCount cached_content_token_count cachedContentTokenCount input_cache_read
        prompt_tokens_details.cached_tokens input_token_details.cache_read gen_ai.usage.cache_read.input_tokens
        llm.token_count.prompt_details.cache_read prompt_cache_hit_tokens cache_audio_read_tokens cacheReadTokens""",
    "cache_write": """cache_creation_input_tokens input_cache_creation input_cache_creation_5m input_cache_creation_1h
        input_ephemeral_1h_input_tokens ephemeral_5m_input_tokens cache_creation.ephemeral_1h_input_tokens
        ephemeral1hInputTokens ephemeral5mInputTokens
        cacheWriteInputTokens cacheWriteInputTokenCount cacheCreationInputTokens cache_write_tokens
        gen_ai.usage.cache_creation.input_tokens llm.token_count.prompt_details.cache_write""",
    "reasoning": """reasoning thinking output_reasoning_tokens reasoning_tokens reasoningTokens thoughts_token_count
        thoughtsTokenCount thinking_tokens completion_tokens_details.reasoning_tokens
        output_tokens_details.thinking_tokens gen_ai.usage.reasoning.output_tokens
        llm.token_count.completion_details.reasoning""",
    "units": """web_search_requests server_tool_use.web_search_requests webSearchRequests searches search_units
        characters input_characters images output_images image_count num_images seconds audio_seconds
        inputAudioSeconds duration_seconds requests tool_calls pages ocr_pages milliseconds tokens_per_second""",
}

KNOWN = [(name, key) for name, keys in SPELLINGS.items() for key in keys.split()]


def kind_of(key: str) -> str:
    found = read_key(key)
    return TOKEN_CLASSES[found.token_class] if found.counted is KeyMeaning.TOKENS else found.counted.value


@pytest.mark.parametrize(("kind", "key"), KNOWN)
def test_the_spellings_in_use_are_known(kind: str, key: str) -> None:
    assert kind_of(key) == kind
    assert read_key(key).is_known


def respelled(key: str, joint: str, is_camel: bool) -> str:
    words = [word for word in re.split(r"[._]", key) if word]
    if is_camel:
        return words[0] + "".join(word.capitalize() for word in words[1:])
    return joint.join(words)


@given(
    st.sampled_from([one for one in KNOWN if one[1] == one[1].lower()]),
    st.sampled_from(["_", ".", "-", " ", "/", ":", "__"]),
    st.booleans(),
    st.booleans(),
)
def test_snake_camel_dotted_and_capital_spellings_mean_the_same(
    known: tuple[str, str], joint: str, is_camel: bool, is_upper: bool
) -> None:
    kind, key = known
    spelled = respelled(key, joint, is_camel)
    assert kind_of(spelled.upper() if is_upper and not is_camel else spelled) == kind


@pytest.mark.parametrize("key", ["frobs", "mystery_tokens", "audio", "x", "count", "mystery_1h_input_tokens", "größe"])
def test_what_nobody_told_us_is_not_known(key: str) -> None:
    assert not read_key(key).is_known


@given(st.text(max_size=40))
def test_any_text_is_a_key_of_some_kind(key: str) -> None:
    kind = read_key(key)
    assert 0 <= kind.token_class < len(TOKEN_CLASSES)
    if "input" in key.lower() and kind.counted is KeyMeaning.TOKENS:
        assert kind.side == 0
