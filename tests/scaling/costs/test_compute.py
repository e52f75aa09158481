from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scaling.costs.flops import Architecture, ModelShape
from scaling.errors import InputError

TABLE_13 = np.loadtxt(Path(__file__).with_name("table_13.csv"), delimiter=",", skiprows=2)
MISPRINTED = 37  # its d_ffn disagrees with its own N and C_fwd, which imply 12800


@pytest.mark.parametrize("row", TABLE_13, ids=[f"{row[0]}B" for row in TABLE_13])
def test_table_13(row):
    N, total, layers, width, ffn, forward, approximate = row
    shape = Architecture().shape(int(layers), head_dim=int(width) // 16)  # head counts are not printed
    assert (shape.width, shape.ffn, shape.heads) == (width, ffn, 16)
    if layers == MISPRINTED:
        shape = replace(shape, ffn=12800)
    assert shape.params == pytest.approx(N * 1e9, rel=5e-4)
    assert shape.total_params == pytest.approx(total * 1e9, rel=2e-3)
    assert shape.approximate_forward_flops == pytest.approx(approximate * 1e9, rel=6e-4)
    assert shape.forward_flops == pytest.approx(forward * 1e9, rel=1e-3)
    assert Architecture().forward_flops(shape.params) == pytest.approx(forward * 1e9, rel=3.5e-3)


def test_forward_flops_anchors():
    N = [1e8, 3e8, 1e9, 3e9, 1e10, 1e11]
    expected = [3.337749e8, 8.355529e8, 2.454385e9, 6.853143e9, 2.175026e10, 2.073510e11]
    np.testing.assert_allclose(Architecture().forward_flops(N), expected, rtol=1e-6)


def test_the_6nd_rule():
    simple = Architecture(rule="6nd")
    assert simple.training_flops(1e9, 2e10) == pytest.approx(6 * 1e9 * 2e10)


def test_a_shape_and_its_family_agree():
    shape = ModelShape(
        layers=24, width=2048, ffn=5632, heads=16, head_dim=96, kv_heads=4, vocab=512, context=128
    )
    family = shape.architecture
    assert family.omega * shape.layers * shape.width**2 == pytest.approx(shape.matrix_params)
    assert family.forward_flops(shape.matrix_params) == pytest.approx(
        2 * shape.matrix_params + 2 * 24 * 128 * 16 * 96 + 2 * 512 * 2048
    )
    assert shape.training_flops(10) == pytest.approx(30 * shape.forward_flops)


def test_norm_gains_and_untied_embeddings_are_counted():
    common = {"layers": 2, "width": 32, "ffn": 96, "heads": 2, "head_dim": 16, "vocab": 512, "context": 64}
    grouped = ModelShape(**common, kv_heads=1, tied=False, qk_norm=False)
    per_layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 96 + 2 * 32
    assert grouped.params == 2 * per_layer + 32
    assert grouped.embedding_params == 2 * 512 * 32
    assert ModelShape(**common, kv_heads=1).params == grouped.params + 2 * 2 * 16


def test_impossible_shapes_say_why():
    with pytest.raises(InputError, match="multiple of kv_heads"):
        ModelShape(layers=2, width=8, ffn=8, heads=3, head_dim=4, kv_heads=2, vocab=9, context=9)
    with pytest.raises(InputError, match=r"ModelShape\.layers: must be positive, not 0"):
        ModelShape(layers=0, width=8, ffn=8, heads=2, head_dim=4, kv_heads=2, vocab=9, context=9)
    with pytest.raises(InputError, match="FLOPs rule"):
        Architecture(rule="8nd")
