"""Bytes of stored distributions, and how they are asked for."""

import pytest

from scaling.costs.logit_storage import LogitStorage, bits_for, parse_logit_storage
from scaling.errors import InputError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("cached", 2 * 128_256),
        ("top-k:32", 33 * 2 + 32 * 4),
        ("top-k:32:16", (33 * 16 + 32 * 17) / 8),
        ("top-k:32:8", (33 * 8 + 32 * 17) / 8),
        ("top-p:64:8", (8 + 65 * 8 + 64 * 17) / 8),
        ("top-p:300", (16 + 301 * 16 + 300 * 17) / 8),
        ("sampled:50", (8 + 50 * (6 + 17)) / 8),
    ],
)
def test_bytes_of_layouts(given, expected):
    layout = parse_logit_storage(given, 128_256, "--store-logits")
    assert layout.bytes_per_token == expected
    assert expected <= layout.block_bytes(1000) / 1000 < expected + 0.003
    if given == "top-k:32":
        assert parse_logit_storage(given, 2**16, "x").bytes_per_token == 33 * 2 + 32 * 2


def test_weights_of_another_proposal_take_16_bits():
    assert LogitStorage("sampled", 2**17, 50, power=0.8).bytes_per_token == (8 + 50 * (16 + 17)) / 8


def test_bits():
    assert [bits_for(count) for count in (1, 2, 3, 2**16, 2**16 + 1)] == [1, 1, 2, 16, 17]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("top-k", "--store-logits: 'top-k' is none of full"),
        ("cached:3", "is none of full"),
        ("top-k:3:8:8", "is none of full"),
        ("top-k:3.5", "must have whole numbers"),
        ("top-k:3:9", "probabilities have 8 or 16 bits"),
        ("sampled:3:8", "sampled keeps counts"),
        ("top-p:1M", "top-p: must keep 1 to 512 tokens, not 1,000,000"),
        ("sampled:70k", "sampled: must keep 1 to 65,535 tokens"),
    ],
)
def test_what_is_no_layout_is_refused(given, message):
    with pytest.raises(InputError) as found:
        parse_logit_storage(given, 512, "--store-logits")
    assert message in str(found.value)
