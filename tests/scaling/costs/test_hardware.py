import pytest

from scaling import InputError, hardware
from scaling.costs.hardware import stored_bytes_per_token, table


def test_hours_and_dollars():
    h100 = hardware("h100", utilisation=0.5, count=8, dollars_per_hour=2.0)
    flops = 989.4e12 * 0.5 * 3600 * 80
    assert h100.device_hours(flops) == pytest.approx(80)
    assert h100.wall_hours(flops) == pytest.approx(10)
    assert h100.dollars(flops) == pytest.approx(160)


def test_every_row_has_a_date_and_a_source():
    assert all(row.date and row.source for row in table())


def test_unknown_devices_need_their_own_numbers():
    with pytest.raises(InputError, match="no hardware abacus bf16; known are"):
        hardware("abacus")
    assert hardware("abacus", peak_flops=1.0, dollars_per_hour=1.0).device_hours(3600 * 0.4) == pytest.approx(
        1
    )
    with pytest.raises(InputError, match="utilisation"):
        hardware("h100", utilisation=1.2)


def test_stored_logits():
    assert stored_bytes_per_token(32768) == 131072  # Busbridge et al., G.4: about 129 kB
    assert stored_bytes_per_token(32768, 128) == 128 * 8 + 4
    with pytest.raises(InputError, match="top_k"):
        stored_bytes_per_token(100, 101)


def test_every_device_has_a_peak_in_fp32_and_its_memory():
    """No tensor cores without TF32: an H100 multiplies fp32 matrices 15 times more slowly than bf16."""
    for row in table():
        exact = hardware(row.name, precision="fp32")
        assert exact.peak_flops <= hardware(row.name, precision="tf32").peak_flops / 7
        assert exact.memory_bytes == row.memory_bytes >= 40e9
    assert hardware("h100").peak_flops / hardware("h100", precision="fp32").peak_flops == pytest.approx(
        14.8, rel=0.01
    )
