"""The calculator page in headless Chromium: every kind of question, by mouse and by keyboard."""

import csv
import io
import json
import os
import re
import shutil

import pytest

from distlaw.serve.answers import thinned
from scaling import Calibration, Question, plan

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium")
if not CHROMIUM:
    pytest.skip("needs chromium: apt-get install chromium", allow_module_level=True)

expect = playwright.expect
FEW = thinned(Calibration.load("busbridge2025-figure1-runs"), 20)
SOON = 60_000
"""Milliseconds that a busy machine may take."""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, api):
    """An open page, which must neither complain nor ask another host for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(SOON)
    expect.set_options(timeout=SOON)
    page = context.new_page()
    complaints, hosts = [], set()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    yield page
    context.close()
    assert [each for each in complaints if "422" not in each] == []  # the browser's own note of a refusal
    assert hosts <= {api.removeprefix("http://")}


def opened(page, api, asked=""):
    page.goto(f"{api}/?{len(asked)}#{asked}")
    settled(page)
    return page


def settled(page):
    page.wait_for_timeout(500)  # the page waits for rest before it asks the long questions
    page.wait_for_selector("#progress", state="hidden")


def test_the_verdict_comes_first_and_is_the_planners(page, api):
    opened(page, api)
    expected = plan(Question(student_params=3e8, budget=1e21))
    assert page.inner_text("#verdict").split() == expected.headline.split()
    assert page.locator(".way").count() == 5
    losses = page.locator(".way .value b").all_inner_texts()
    assert losses == [f"{way.loss.value:.3f}" for way in (*expected.direct, *expected.distillations)]
    assert page.locator("#curves canvas").count() == page.locator("#map canvas").count() == 1
    box = page.locator("#answer").bounding_box()
    assert box["y"] < 120


ASKED = {
    "plan": ("ask=plan&best=1&scenario=best_case", "3.87B on"),
    "target": ("ask=target&target=2.5&scenario=best_case", "Cheapest way to a loss of 2.5"),
    "teachers": ("ask=teachers", "medium"),
    "family": ("ask=family&family=100M,+1B&scenario=best_case", "1B student"),
    "predict": ("ask=predict&teacher=size", "Alone the student reaches"),
    "design": ("ask=design&spend=1e16&scenario=best_case", "right with probability"),
    "compare": ("ask=compare&scenario=best_case&against=hoffmann2022;busbridge2025-table6", "1 of 1"),
}


@pytest.mark.parametrize("kind", ASKED)
def test_every_kind_of_question_is_answered_from_its_link(page, api, kind):
    link, words = ASKED[kind]
    opened(page, api, link)
    expect(page.locator("#answer")).to_contain_text(words)
    assert page.is_hidden("#problem")
    assert page.is_checked(f"[name=ask][value={kind}]")
    assert page.inner_text("#command").startswith("distlaw ")
    assert page.locator("#table tbody tr").count() >= 1
    assert page.is_visible("#curves-card") == (kind in ("plan", "target"))


def test_a_design_is_drawn_beside_its_factorial_grid_and_read_by_keyboard(page, api):
    opened(page, api, "ask=design&spend=1e16&scenario=best_case")
    expect(page.locator("#design canvas")).to_have_count(1)
    readings = page.locator("#design-readings p")
    assert readings.nth(0).inner_text().startswith("chosen for the question")
    assert readings.nth(1).inner_text().startswith("factorial grid")
    whole = readings.nth(0).inner_text()
    page.focus("#design")
    page.keyboard.press("Home")
    assert "1 run:" in readings.nth(0).inner_text()
    page.keyboard.press("Escape")
    assert readings.nth(0).inner_text() == whole
    page.check("[name=design_shown][value=probability]", force=True)
    expect(page.locator("#design canvas")).to_have_count(1)
    assert page.inner_text("#command").startswith("distlaw design --student 300M --budget 1e21 --spend 1e16")
    assert page.is_hidden("#curves-card")
    page.check("[name=ask][value=plan]", force=True)
    settled(page)
    assert page.is_hidden("#design-card")
    assert page.is_visible("#curves-card")


def test_a_family_is_a_table_of_ways_and_students(page, api):
    opened(page, api, "ask=family&family=100M,+1B&budget=3e21")
    expected = plan(Question(family=(1e8, 1e9), budget=3e21))
    rows = page.locator(".family tbody tr")
    assert page.locator(".family thead th").all_inner_texts()[1:] == ["100M student", "1B student"]
    assert rows.count() == 5
    assert rows.nth(0).locator("td").all_inner_texts() == [f"{way.loss.value:.3f}" for way in expected.direct]
    way = next(each for each in expected.distillations if each.params == 1e9)
    cell = rows.nth(1).locator("td").nth(1)
    expect(cell).to_contain_text(f"{abs(way.gain.value):.3f} · {way.probability:.2f}")


def test_teachers_are_asked_about_by_name(page, api):
    opened(page, api, "ask=teachers")
    page.fill("#catalogue", "Qwen/Qwen3-0.6B-Base, Qwen/Qwen3-8B")
    settled(page)
    assert "--teacher Qwen/Qwen3-0.6B-Base --teacher Qwen/Qwen3-8B" in page.inner_text("#command")
    expect(page.locator("#cautions")).to_contain_text("needs its teacher's tokenizer (151936 tokens)")


def test_a_question_made_by_hand_goes_into_the_link_and_comes_back(page, api, browser):
    opened(page, api)
    page.fill("#student", "1B")
    page.uncheck("[value=teacher_pretraining]")
    page.click("summary:has-text('Data, serving')")
    page.fill("#unique", "100B")
    page.fill("#store", "64")
    page.fill("[name=teacher_params_high]", "2B")
    settled(page)
    link, verdict = page.url, page.inner_text("#verdict")
    assert "--constrain 'teacher_params<=2B'" in page.inner_text("#command")
    assert "--store-logits 64" in page.inner_text("#command")
    expect(page.locator("#assumptions")).to_contain_text("storing logits: 516 bytes/token")
    expect(page.locator("#map-note")).to_contain_text("published counts on one side only")
    page.goto("about:blank")
    page.goto(link)
    settled(page)
    assert page.input_value("#student") == "1B"
    assert page.inner_text("#verdict") == verdict
    page.click("text=Start over")
    settled(page)
    assert page.input_value("#student") == "300M"
    assert page.url.endswith("#")


def test_wrong_input_is_explained_beside_the_field_and_the_next_answer_clears_it(page, api):
    opened(page, api, "scenario=best_case")
    page.fill("#budget", "a lot")
    expect(page.locator("#problem")).to_contain_text("budget: cannot read 'a lot'")
    assert page.get_attribute("#budget", "aria-invalid") == "true"
    page.fill("#budget", "1e400")
    expect(page.locator("#problem")).to_contain_text("budget: must be positive and finite")
    page.fill("#budget", "2e21")
    expect(page.locator("#problem")).to_be_hidden()
    assert page.get_attribute("#budget", "aria-invalid") is None
    page.check("[name=ask][value=teachers]", force=True)
    page.fill("#catalogue", "<script>alert(1)</script>")
    expect(page.locator("#problem")).to_contain_text("teachers: '<script>alert(1)</script>' is no size")
    assert page.get_attribute("#catalogue", "aria-invalid") == "true"


def test_an_upload_stays_here_and_its_link_asks_for_the_file(page, api, tmp_path):
    opened(page, api, "scenario=best_case")
    path = tmp_path / "mine.json"
    page.set_input_files("#upload", {"name": "../../etc/passwd", "mimeType": "", "buffer": b"{NaN"})
    expect(page.locator("#problem")).to_contain_text("../../etc/passwd is not JSON")
    page.set_input_files("#upload", {"name": "huge.json", "mimeType": "", "buffer": b" " * 2_000_001})
    expect(page.locator("#problem")).to_contain_text("at most 2,000,000 are taken")
    content = json.loads(FEW.to_json()) | {"name": "<b>mine</b>"}
    content["supervised"]["E"] = None
    path.write_text(json.dumps(content))
    page.set_input_files("#upload", path)
    expect(page.locator("#problem")).to_contain_text("supervised.E: must be a finite number")
    content["supervised"]["E"] = 1.0
    path.write_text(json.dumps(content))
    page.set_input_files("#upload", path)
    expect(page.locator("#asked")).to_contain_text("calibration <b>mine</b>")
    expect(page.locator("#problem")).to_be_hidden()
    settled(page)
    link, verdict = page.url, page.inner_text("#verdict")
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator("#problem")).to_contain_text(
        re.compile("made with the file <b>mine</b> .*; upload that file")
    )
    page.set_input_files("#upload", path)
    expect(page.locator("#verdict")).to_have_text(verdict)


def test_the_keyboard_reaches_everything(page, api):
    """A slider, the kinds of question, and the map."""
    opened(page, api, "scenario=best_case")
    page.focus("[aria-label='Student, slider']")
    page.keyboard.press("ArrowRight")
    assert page.input_value("#student") != "300M"
    page.focus("#map")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    settled(page)
    assert page.input_value("#budget") == "1.3e21"
    page.focus("[name=ask]:checked")
    page.keyboard.press("ArrowRight")
    assert page.is_checked("[name=ask][value=target]")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('input, select, textarea, button')].filter((each) =>
        !each.labels?.length && !each.ariaLabel && !each.textContent.trim()).map((each) => each.outerHTML)"""
    )
    assert unnamed == []


def test_a_budget_is_hours_or_dollars_and_its_slider_follows(page, api):
    opened(page, api, "scenario=best_case&budget=1000+h100-hours")
    expect(page.locator("#budget-note")).to_have_text(re.compile(r"^= 1\.42e21 FLOPs .*h100-hours = \$"))
    assert page.is_hidden("#problem")
    slider = page.locator("[aria-label='Budget, slider']")
    assert float(slider.input_value()) == pytest.approx(21.15, abs=0.05)
    assert "--budget '1000 h100-hours'" in page.inner_text("#command")
    page.fill("#budget", "$5000")
    expect(page.locator("#problem")).to_contain_text("names no device")
    assert page.is_hidden("#keep-card")  # no boxes of an answer that is another question's
    page.fill("#budget", "$5000 on h200")
    expect(page.locator("#budget-note")).to_contain_text("= $5K")
    slider.focus()
    page.keyboard.press("ArrowRight")
    settled(page)
    assert re.fullmatch(r"\d(\.\d)?e21", page.input_value("#budget"))
    expect(page.locator("#budget-note")).to_contain_text("64 b200 for 10 days")


def test_open_models_are_teachers_by_name(page, api):
    """A mixture of experts comes with its active parameters; a part of a name must say which is meant."""
    opened(page, api, "ask=teachers&vocab=151936")
    page.fill("#open_model", "qwen3")
    page.click("#add_model")
    expect(page.locator("#model-note")).to_contain_text(re.compile(r"\d+ models match: Qwen/Qwen3"))
    page.fill("#open_model", "Qwen3-30B-A3B")
    page.keyboard.press("Enter")
    settled(page)
    expect(page.locator("#model-note")).to_contain_text("29.9B (2.73B active) on 36T tokens")
    assert page.input_value("#catalogue").endswith("large,8B,,2T\nQwen/Qwen3-30B-A3B-Base,,,\n")
    expect(page.locator("#ways")).to_contain_text("Qwen/Qwen3-30B-A3B-Base")
    page.fill("#open_model", "nobody")
    page.click("#add_model")
    expect(page.locator("#model-note")).to_contain_text("No such open model")


def test_every_calibration_is_compared_where_it_can_answer(page, api):
    opened(page, api, "ask=compare&scenario=best_case")
    expect(page.locator("#cautions")).to_contain_text("distlaw2026-permissive: left out")
    assert "distlaw2026-permissive" not in page.inner_text("#table")
    assert not re.search(r"\de[+]?\d", page.inner_text("#table"))
    page.uncheck("[name=against][value=hoffmann2022]")
    settled(page)
    assert "distlaw2026-permissive" in page.inner_text("#table")  # asked for by name


def test_the_keyboard_reads_the_curves_and_asks_there(page, api):
    opened(page, api, "scenario=best_case")
    page.focus("#curves")
    before = page.inner_text("#readings")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#readings") != before
    page.keyboard.press("Escape")
    assert page.inner_text("#readings") == before
    page.keyboard.press("End")
    assert "beyond the fitted runs" in page.inner_text("#readings")
    page.keyboard.press("Enter")
    settled(page)
    assert float(page.input_value("#budget")) > 2e22


@pytest.mark.parametrize("kind", ASKED)
def test_no_table_is_clipped_on_a_desktop_and_no_page_on_a_phone(page, api, kind):
    page.set_viewport_size({"width": 1440, "height": 900})
    opened(page, api, "" if kind == "plan" else f"ask={kind}")
    tables = page.locator(".scroll").evaluate_all(
        "all => all.map(each => [each.scrollWidth, each.clientWidth])"
    )
    assert tables
    assert all(wide <= seen for wide, seen in tables)
    page.set_viewport_size({"width": 390, "height": 844})
    for _ in range(50):  # figures follow after a moment; the page's policy forbids wait_for_function
        if (wide := page.evaluate("document.documentElement.scrollWidth")) <= 390:
            break
        page.wait_for_timeout(100)
    assert wide <= 390


def test_a_finger_taps(browser, api):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    opened(page, api, "scenario=best_case")
    shown = page.inner_text("main")
    assert "Tap to change the budget" in shown and "tap it to read why" in shown
    assert "Click" not in shown
    context.close()


def test_a_click_in_the_map_or_the_curves_asks_there(page, api):
    opened(page, api, "best=1&scenario=teacher_inference")
    page.locator("#map .u-over").click(position={"x": 40, "y": 40})
    settled(page)
    assert not page.is_checked("[name=best]")
    assert page.input_value("#budget") != "1e21"
    before = page.input_value("#budget")
    page.locator("#curves .u-over").click(position={"x": 400, "y": 40})
    settled(page)
    assert page.input_value("#budget") != before
    page.locator("#curves .u-over").hover(position={"x": 20, "y": 40})
    assert re.search(r"[+−]\d\.\d{3} \[", page.inner_text("#readings"))


def test_downloads_hold_what_is_shown(page, api):
    opened(page, api, "scenario=best_case")

    def saved(button):
        with page.expect_download() as coming:
            page.click(button)
        return coming.value.suggested_filename, coming.value.path().read_bytes()

    expected = plan(Question(student_params=3e8, budget=1e21, scenarios=("best_case",)))
    name, content = saved("#save-json")
    assert name == "distlaw-plan.json"
    found = json.loads(content)
    assert found["answer"]["headline"] == expected.headline
    assert found["question"]["student_params"] == "300M"
    rows = list(csv.DictReader(io.StringIO(saved("#save-csv")[1].decode())))
    assert [float(row["loss_nats"]) for row in rows] == [row["loss_nats"] for row in expected.rows()]
    curves = list(csv.DictReader(io.StringIO(saved("#save-curves")[1].decode())))
    assert {row["way"] for row in curves} == {"direct", "best_case"}
    assert len(curves) == 62
    assert saved("#save-png")[1].startswith(b"\x89PNG")


@pytest.mark.parametrize("link", ["lifetime=100B", "budget=1e12", "calibration=hoffmann2022", "budget=1e10"])
def test_a_valid_answer_is_not_greyed_out_and_has_its_curves(page, api, link):
    opened(page, api, link)
    assert page.is_hidden("#problem")
    assert "failed" not in (page.get_attribute("#answer", "class") or "")
    assert page.locator("#curves canvas").count() == 1
    assert page.inner_text("#curves-problem") == ""
    if "hoffmann" in link:
        assert page.is_hidden("#shown")
        assert page.is_hidden("#map-card")
        assert "direct training" in page.inner_text("#readings")


def test_figures_that_fail_say_so_in_their_own_cards(page, api):
    refusals = {name: json.dumps({"detail": f"no {name} today"}) for name in ("frontier", "map")}
    page.route("**/frontier", lambda route: route.fulfill(status=422, body=refusals["frontier"]))
    page.route("**/map", lambda route: route.fulfill(status=422, body=refusals["map"]))
    opened(page, api)
    assert page.is_hidden("#problem")
    assert "failed" not in (page.get_attribute("#answer", "class") or "")
    expect(page.locator("#curves-problem")).to_have_text(
        "This figure cannot be drawn here: no frontier today."
    )
    expect(page.locator("#map-problem")).to_have_text("This figure cannot be drawn here: no map today.")
    assert page.is_hidden("#curves")
    page.unroute("**/frontier")
    page.fill("#budget", "2e21")
    expect(page.locator("#curves canvas")).to_be_visible()
    assert page.inner_text("#curves-problem") == ""


def test_a_first_question_without_an_answer_says_so(page, api):
    opened(page, api, "ask=target&target=1.3&scenario=best_case")
    expect(page.locator("#problem")).to_contain_text("cannot be reached")
    assert page.inner_text("#asked") == "There is no answer to this question yet; the reason:"
    assert page.is_hidden("#keep-card")
    page.fill("#target", "2.5")
    expect(page.locator("#asked")).to_contain_text("target 2.5 nats/token")
    expect(page.locator("#keep-card")).to_be_visible()


def test_an_upload_that_fails_leaves_the_answer_as_it_is(page, api):
    opened(page, api, "scenario=best_case")
    page.set_input_files("#upload", {"name": "mine.json", "mimeType": "", "buffer": b"{NaN"})
    expect(page.locator("#problem")).to_contain_text("mine.json is not JSON")
    assert "failed" not in (page.get_attribute("#answer", "class") or "")


def test_quick_points_that_come_late_do_not_replace_the_answer(page, api):
    def late(route):
        if json.loads(route.request.post_data)["uncertainty"] is False:
            page.wait_for_timeout(700)
        route.continue_()

    opened(page, api, "scenario=best_case")
    page.route(
        "**/plan",
        lambda route: late(route) if "uncertainty" in route.request.post_data else route.continue_(),
    )
    for text in ("310M", "320M", "330M"):
        page.fill("#student", text)
        page.wait_for_timeout(50)
    expect(page.locator("#asked")).to_contain_text("330M student")
    page.wait_for_timeout(2000)
    assert "provisional" not in (page.get_attribute("#answer", "class") or "")
    assert page.locator(".badge:visible").count() == 1


def test_the_figures_read_what_the_verdict_says(page, api):
    opened(page, api, "student=450M&budget=7e20")
    expected = plan(Question(student_params=4.5e8, budget=7e20))
    way = next(each for each in expected.distillations if each.name == page.input_value("#map-scenario"))
    reading = page.inner_text("#map-reading").replace("\u2212", "-")
    assert reading.startswith("450M student, 7e20 FLOPs: ")
    assert f"{way.verdict}, gain {way.gain.value:+.3f} nats/token" in reading
    assert f"P(distilling is better) = {way.probability:.2f}" in reading
    said = page.inner_text("#readings").replace("\u2212", "-")
    assert "at 7e20 FLOPs" in said
    for each in expected.distillations:
        assert f"{each.gain.value:+.3f} [{each.gain.low:+.3f}, {each.gain.high:+.3f}]" in said


def test_the_shading_marks_what_lies_beyond_the_runs_and_nothing_else(page, api):
    opened(page, api)
    outside = page.evaluate(
        """async () => (await (await fetch('frontier', {method: 'POST', headers: {'Content-Type': 'application/json'},
        body: JSON.stringify({student_params: '300M', budgets: [3e19, 3e22]})})).json()).frontier.outside"""
    )
    assert min(outside) == 1
    assert max(outside) > 1.5


def test_keys_pressed_quickly_are_not_lost(page, api):
    opened(page, api, "scenario=best_case")
    page.focus("#map")
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
    assert page.input_value("#student") == "600M"
    assert page.input_value("#budget") == "1.6e21"
    settled(page)
    assert page.inner_text("#map-reading").startswith("600M student, 1.6e21 FLOPs: ")


def test_a_line_of_the_legend_keeps_the_focus(page, api):
    opened(page, api, "scenario=best_case;teacher_inference")
    first = page.locator("#readings button").first
    first.focus()
    for pressed in ("false", "true", "false"):
        page.keyboard.press("Enter")
        assert first.get_attribute("aria-pressed") == pressed
    assert page.evaluate("document.activeElement.closest('#readings') !== null")


def test_sliders_follow_the_calibration_and_a_question_too_far_away_is_helped(page, api):
    opened(page, api)
    ends = "each => [Number(each.min), Number(each.max), Number(each.value)].map((x) => 10 ** x)"
    slider = page.locator("[aria-label='Student, slider']")
    assert slider.evaluate(ends)[:2] == pytest.approx([1.43e7, 7.75e10], rel=0.1)
    page.select_option("#calibration", "distlaw2026-permissive")
    settled(page)
    low, high, value = slider.evaluate(ends)
    assert (low, value) == pytest.approx((1347, 3e8), rel=0.1)
    assert high == pytest.approx(3e8, rel=0.1)  # the question's own, where the slider stands
    expect(page.locator("#hint")).to_contain_text(
        "students of 13.5K to 400K parameters on 524K to 4.19M tokens"
    )
    page.click("#hint button")
    settled(page)
    assert page.is_hidden("#hint")
    assert "No answer" not in page.inner_text("#verdict")
    assert slider.evaluate(ends)[:2] == pytest.approx([1347, 4.0e6], rel=0.1)
    target = page.locator("[aria-label='Target loss, slider']")
    assert float(target.get_attribute("min")) < 2.0 < float(target.get_attribute("max"))


def test_what_flops_are_counted_with_is_said_and_an_assumption_stands_with_the_verdict(page, api):
    opened(page, api, "scenario=best_case&vocab=50257&aspect=64")
    expect(page.locator("#assumptions")).to_contain_text(
        "context 4096, vocabulary 50257, aspect ratio 64 (all given)"
    )
    assert "--aspect-ratio 64" in page.inner_text("#command")
    content = json.loads(FEW.to_json()) | {"name": "assuming"}
    content["architecture_origins"]["vocab"] = "assumed"
    page.set_input_files(
        "#upload", {"name": "mine.json", "mimeType": "", "buffer": json.dumps(content).encode()}
    )
    page.click("summary:has-text('Hardware')")
    page.fill("#vocab", "")
    expect(page.locator("#cautions li").first).to_contain_text(
        "Assumed for the FLOPs, as nothing says otherwise: vocabulary 32768"
    )


def test_a_teacher_beyond_the_runs_is_asked_for(page, api):
    opened(page, api, "scenario=teacher_inference")
    assert "from 1.12B on 512B" in page.inner_text("#ways")
    page.click("summary:has-text('Data, serving')")
    page.check("[name=extrapolate]")
    settled(page)
    assert "from 917M on 5.12T" in page.inner_text("#ways")
    assert "--extrapolate" in page.inner_text("#command")
    assert "extrapolate=True" in page.inner_text("#python")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_with_enough_contrast(browser, api, scheme):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(SOON)
    opened(page, api, "scenario=best_case;teacher_pretraining_and_inference")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate(CONTRAST) == []
    context.close()


CONTRAST = """() => {
  const parts = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = (at) => { for (; at; at = at.parentElement) { const c = parts(getComputedStyle(at).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255]; };
  const words = [...document.querySelectorAll('body *')].filter((each) => each.offsetParent
    && [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
  return words.map((each) => { const [a, b] = [light(parts(getComputedStyle(each).color)), light(ground(each))].sort((x, y) => y - x);
    return [each.outerHTML.slice(0, 80), (a + 0.05) / (b + 0.05)]; }).filter(([, ratio]) => ratio < 4.5);
}"""
