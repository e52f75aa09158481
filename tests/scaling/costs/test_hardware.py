import pytest

from scaling import InputError, hardware
from scaling.costs import hardware as hardware_module
from scaling.costs.hardware import device_table, stored_bytes_per_token


def test_hours_and_dollars():
    h100 = hardware("h100", utilisation=0.5, count=8, dollars_per_hour=2.0)
    flops = 989.4e12 * 0.5 * 3600 * 80
    assert h100.device_hours(flops) == pytest.approx(80)
    assert h100.wall_hours(flops) == pytest.approx(10)
    assert h100.dollars(flops) == pytest.approx(160)


def test_every_row_has_a_date_and_a_source():
    assert all(row.date and row.source for row in device_table())


def test_unknown_devices_need_their_own_numbers():
    with pytest.raises(InputError, match="no hardware abacus: known are v100, "):
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


def test_peaks_grow_as_numbers_get_shorter():
    """No tensor cores without TF32: an H100 multiplies fp32 matrices 15 times more slowly than bf16."""
    for name in {row.name for row in device_table()}:
        peak = {row.precision: row.peak_flops for row in device_table() if row.name == name}
        order = [peak[each] for each in ("fp32", "tf32", "bf16", "fp8") if each in peak]
        assert order == sorted(order), name
        assert peak.get("fp16", peak.get("bf16")) == peak.get("bf16", peak.get("fp16")), name
    for name in ("a100", "h100", "h200", "b200"):
        exact = hardware(name, precision="fp32")
        assert exact.peak_flops <= hardware(name, precision="tf32").peak_flops / 7
        assert exact.memory_bytes >= 40e9
    assert hardware("h100").peak_flops / hardware("h100", precision="fp32").peak_flops == pytest.approx(
        14.8, rel=0.01
    )


def test_a_device_is_found_by_what_people_call_it():
    called = ("H100 SXM", "nvidia h100", "H100_80GB", "h100s")
    assert {hardware(each).name for each in called} == {"h100"}
    assert hardware("TPU v5p").name == hardware("v5p").name == "tpu-v5p"
    assert hardware("4090").name == "rtx4090"
    with pytest.raises(InputError, match="did you mean h100 or"):
        hardware("h1000")


def test_the_precision_is_one_that_the_device_has():
    assert hardware("v100").precision == "fp16"
    with pytest.raises(InputError, match="v100 has no bf16 peak in the table, only fp16, fp32"):
        hardware("v100", precision="bf16")


def test_a_device_without_a_price_has_no_dollars():
    device = hardware("mi300x")
    assert device.dollars_per_hour is None and device.flops_per_dollar == 0
    with pytest.raises(InputError, match="no list price of mi300x"):
        device.dollars(1e21)
    assert hardware("mi300x", dollars_per_hour=3.0).dollars(1e21) > 0


def test_the_users_own_table_comes_first(tmp_path, monkeypatch):
    own = tmp_path / "own.csv"
    own.write_text(
        "name,aliases,bf16,fp32,memory_gb,dollars_per_hour\nh100,,900,60,80,1.10\nwafer,ws,5e3,,40,\n"
    )
    monkeypatch.setenv("DISTLAW_HARDWARE", str(own))
    assert hardware("h100").dollars_per_hour == 1.10
    assert hardware("ws").peak_flops == 5e15
    assert hardware("h200").dollars_per_hour == 2.25
    for content, says in (
        ("name,bf16\nx,\n", "line 2: needs a name and a peak"),
        ("name,bf16\nx,fast\n", "hardware x, bf16: cannot read"),
        ("name,bf16\nx,989e12\n", "989e12 TFLOP/s is no device's peak; write 989"),
        ("name,bf16,dollars\nx,989,3\n", "unknown column dollars; columns are name, .*dollars_per_hour"),
        ("name,bf16\nx,900\nX,989\n", "line 3: X has a row already"),
        ("", "unknown column .empty file."),
    ):
        own.write_text(content)
        hardware_module._read_tables.cache_clear()
        with pytest.raises(InputError, match=says):
            hardware("h100")
    monkeypatch.setenv("DISTLAW_HARDWARE", str(tmp_path / "absent.csv"))
    with pytest.raises(InputError, match="DISTLAW_HARDWARE: cannot read"):
        hardware("h100")
