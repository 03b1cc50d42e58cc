"""The report page: what it says, that it is one self-contained file, and how it behaves in a real browser."""

import re
import shutil
from html import unescape

import numpy as np
import pytest

from synth_pipeline.errors import InputError
from synth_pipeline.fidelity.bootstrap import resamples
from synth_pipeline.fidelity.evaluation import Evaluation
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.reports import Report, evaluate, numbers, sections, words
from synth_pipeline.reports.comparison_page import render as render_comparison
from synth_pipeline.reports.page import render
from synth_pipeline.rng import stream
from synth_pipeline.series import Series

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (360, 768, 1280)
PROVENANCE = {
    "instrument": "binance_usdm.BTCUSDT",
    "day": "2024-08-08",
    "generator": "self_exciting_jump_diffusion",
    "seed": "7",
    "dataset": "sha256:" + 8 * "0123abcd",
    "command": "synth-pipeline evaluate --generator '<b>&' --seed 7",
}


def prices(returns):
    levels = np.concatenate([np.zeros((len(returns), 1)), np.cumsum(returns, axis=1)], axis=1)
    rounded = np.round(60_000 * np.exp(levels), 1)
    return Series(rounded[:, :, np.newaxis], ("close",), 500_000_000, np.zeros(len(returns), dtype=np.int64), 0.1)


def compared(kind, steps=240):
    rng = stream(1, "report", kind)
    whole = prices(2e-4 * rng.standard_t(4, (1, 3 * steps + 1)))
    train, holdout = whole.slice(0, 2 * steps + 1), whole.slice(2 * steps + 1, 3 * steps + 2)
    made = {
        "fair": 2e-4 * rng.standard_t(4, (6, steps)),
        "wild": 2e-3 * rng.standard_normal((6, steps)),
        "still": np.zeros((6, steps)),
        "copy": next(resamples(Sample.of(train), (6, steps), 1, 40.0, rng=rng)),
    }[kind]
    return evaluate(train, prices(made), holdout, rng=rng, provenance=PROVENANCE).evaluation


@pytest.fixture(scope="module")
def evaluations():
    return {kind: compared(kind) for kind in ("fair", "wild", "still", "copy")}


@pytest.fixture(scope="module")
def page(evaluations):
    return render(evaluations["wild"], PROVENANCE)


def market(rng, paths, steps, wild=1.0):
    """Prices, volume and spread that have to do with each other."""
    returns = 1e-3 * wild * rng.standard_t(5, (paths, steps))
    price = np.round(100 * np.exp(np.cumsum(returns, axis=1)), 2)
    volume = np.round(np.exp(0.3 * rng.standard_normal((paths, steps)) + 300 * np.abs(returns)), 3)
    values = np.stack([price, volume, 0.01 * (1 + 200 * np.abs(returns))], axis=2)
    return Series(values, ("mid", "volume", "spread"), 60_000_000_000, np.zeros(paths, dtype=np.int64), 0.01)


@pytest.fixture(scope="module")
def rich():
    """A report on several features, long enough for everything that is drawn."""
    rng = stream(2, "rich")
    whole, made = market(rng, 1, 2400), market(rng, 4, 700, wild=1.6)
    return evaluate(whole.slice(0, 1600), made, whole.slice(1600, 2400), provenance=PROVENANCE)


@pytest.fixture(scope="module")
def rich_page(rich):
    return rich.html()


def visible(page):
    """The page without its scripts and style."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)


def test_the_same_record_gives_the_same_bytes_even_after_a_trip_through_json(evaluations, page):
    again = Evaluation.from_json(evaluations["wild"].to_json())
    assert render(again, PROVENANCE) == page


def test_the_page_is_one_small_file_that_asks_for_nothing(page):
    assert len(page.encode()) < 8_000_000
    assert "default-src 'none'" in page
    text = visible(page)
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", text)
    assert text.count("<h1>") == 1
    assert page.count("Plotly.newPlot") < 20, "the library is inlined once"


def test_every_metric_stands_on_the_page_with_its_verdict(evaluations, page):
    text = unescape(visible(page))
    for result in evaluations["wild"].results:
        assert result.title in text
    assert text.count('class="badge') >= len(evaluations["wild"].results)
    assert "nan" not in text.lower().split()
    assert "None" not in text


def test_provenance_is_shown_in_full_and_escaped(page):
    text = visible(page)
    assert "<h1>self_exciting_jump_diffusion · binance_usdm.BTCUSDT · 2024-08-08</h1>" in text
    assert PROVENANCE["dataset"] in text
    assert "--generator &#39;&lt;b&gt;&amp;&#39;" in text
    assert "cannot be traced back" in visible(render(compared("fair", 120), {}))


@pytest.mark.parametrize(
    ("kind", "conclusion", "says"),
    [
        ("fair", "indistinguishable", "As close to the held-out market as fresh real data are"),
        ("wild", "off", "Not like the real market"),
        ("still", "invalid", "Not usable"),
        ("copy", "memorised", "A replay, not a model"),
    ],
)
def test_the_headline_says_what_the_record_concludes(evaluations, kind, conclusion, says):
    assert evaluations[kind].conclusion == conclusion
    assert says in visible(render(evaluations[kind], PROVENANCE))


def test_why_it_fails_names_faults_with_their_numbers_gravest_first(evaluations):
    wild = words.findings(evaluations["wild"])
    titles = [finding.title for finding in wild]
    assert "Volatility" in titles
    assert "too nervous" in next(finding.meaning for finding in wild if finding.title == "Volatility")
    ranks = [("off", "close").index(finding.verdict) for finding in wild]
    assert ranks == sorted(ranks)
    assert words.findings(evaluations["still"])[0].evidence == "6 of 6 paths break it."
    assert words.findings(evaluations["copy"])[0].title in ("Longest verbatim run", "Copied steps")


def test_a_number_that_knows_no_training_reference_is_told_without_a_dash(rich):
    told = words.findings(rich.evaluation)
    assert any("training data kept apart" in each.evidence for each in told)
    assert not any(numbers.DASH in each.evidence for each in told)


def test_every_section_says_what_it_shows_and_why_it_fails(rich_page):
    found = re.findall(r'<section id="([a-z]+)">(.*?)</section>', rich_page, flags=re.DOTALL)
    bodies = {name: visible(body) for name, body in found}
    told = set(bodies) - {"why", "uses", "all", "method", "provenance"}
    assert told >= {*sections.SECTIONS, "validity", "stress", "checklists"} - {"dependence"}
    for name in told:
        assert 'class="explain"' in bodies[name], name
        assert "Why it fails" in bodies[name] or "Does it fail?" in bodies[name], name
        assert not re.search(r'class="why">\s*<h3>[^<]*</h3>\s*<p></p>', bodies[name]), name


def test_every_metric_stands_beside_its_four_floors(rich, rich_page):
    text = visible(rich_page)
    for head in ("Fresh real", "Split half", "Bootstrap", "Copy"):
        assert f'<th scope="col">{head}</th>' in text
    row = re.search(r"<tr>\s*<th scope=\"row\">Authenticity<.*?</tr>", text, flags=re.DOTALL)
    found = next(each for each in rich.evaluation.results if each.name == "authenticity")
    for floor in (found.floors.fresh, found.floors.split_half, found.floors.bootstrap, found.floors.copy):
        assert numbers.quantity(floor.value, found.unit) in row[0]


def test_checklists_stand_with_the_share_that_real_data_pass(rich, rich_page):
    text = visible(rich_page)
    parity = next(each for each in rich.evaluation.exhibits.checklists if each.name == "feature_parity")
    told = f"passes {numbers.percent(parity.share)}, fresh real data {numbers.percent(parity.floor_share)}"
    assert f"Feature parity: {told}" in text
    assert all(check.title in unescape(text) for check in parity.checks)


def test_neighbours_of_a_copy_coincide_and_the_map_has_every_side():
    rng = stream(3, "copied")
    whole = market(rng, 1, 2400)
    train, holdout = whole.slice(0, 1600), whole.slice(1600, 2400)
    copied = evaluate(train, train.slice(300, 1000), holdout).evaluation.exhibits
    assert all(pair.distance < 1e-3 for pair in copied.neighbours.pairs)
    assert np.allclose(copied.neighbours.pairs[0].synthetic, copied.neighbours.pairs[0].training, atol=1e-3)
    assert copied.neighbours.typical > 0.3
    assert {len(side) > 100 for side in (copied.map.train, copied.map.holdout, copied.map.synthetic)} == {True}


def test_tails_are_the_shares_beyond_a_size():
    rng = stream(4, "tails")
    whole = prices(2e-4 * rng.standard_t(4, (1, 1200)))
    made = 2e-4 * rng.standard_t(4, (3, 400))
    shown = evaluate(whole.slice(0, 800), prices(made), whole.slice(800, 1201)).evaluation.exhibits
    sigma = np.std(whole.slice(800, 1201).log_returns())
    returns = prices(made).log_returns() / sigma
    for panel, sign in ((shown.losses, -1), (shown.gains, 1)):
        beyond = [float((sign * returns[:, -399:] >= size).mean()) for size in panel.at]
        assert np.allclose([each or 0.0 for each in panel.synthetic], beyond, atol=5 / returns.size + 1e-2)


def test_a_record_alone_makes_the_same_page_again(rich, rich_page, tmp_path):
    again = Report.load(rich.save(tmp_path / "record.json"))
    assert again.html() == rich_page
    assert len(again.figure("correlations_difference").data[0].z) == 3


def test_two_samples_stand_beside_each_other_with_their_floors(evaluations):
    text = visible(render_comparison({"fair": evaluations["fair"], "wild": evaluations["wild"]}))
    assert "<h1>fair beside wild</h1>" in text
    assert "Floors of fair" in text
    nearer = int(re.search(r"fair is nearer to real data on (\d+)", text)[1])
    assert nearer > 5
    assert int(re.search(r"and wild on (\d+)", text)[1]) < nearer
    with pytest.raises(InputError, match="training steps"):
        render_comparison({"one": evaluations["fair"], "other": compared("fair", 120)})


def test_each_card_carries_its_floor(evaluations):
    for evaluation in evaluations.values():
        assert all("real" in card.floor for card in words.cards(evaluation))


def test_absent_metrics_are_shown_with_their_reason():
    short = compared("fair", 120)
    text = visible(render(short, PROVENANCE))
    assert "ks_distance needs 200 known returns, the real sample has 120" in text
    assert re.search(r"\d+ metrics could not be computed", text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (58.437, "58.4"),
        (-0.000422, "−0.000422"),
        (1234567.0, "1,230,000"),
        (4.67e-42, "4.67e−42"),
        (None, "–"),
    ],
)
def test_numbers_have_sensible_digits(value, text):
    assert numbers.number(value) == text


def test_shares_are_rounded_to_all_or_nothing_only_when_they_are():
    assert numbers.percent(1.0) == "100 %"
    assert numbers.percent(0.99999) == "99.99 %"
    assert numbers.percent(0.0000001) == "0.01 %"
    assert numbers.percent(0.354) == "35.4 %"
    assert numbers.quantity(0.0000127, "share") == "0.00127 %"
    assert numbers.quantity(1e-9, "p") == "< 0.001"


# ---- in a browser


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed to open the report in")
    from playwright.sync_api import sync_playwright

    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync"
    )
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=flags.split())
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(rich_page, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(rich_page, encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_cleanly_at_every_width(browser, address, width):
    complaints, requests = [], []
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(address)
    tab.wait_for_function("document.documentElement.dataset.plots === '19'")
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [address]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    boxes = tab.eval_on_selector_all(
        ".plot .main-svg:first-of-type",
        "all => all.map(e => [e.clientWidth, e.querySelectorAll('.trace,.hm').length])",
    )
    assert len(boxes) == 19
    assert all(0 < wide <= width and traces > 0 for wide, traces in boxes)
    tab.close()


# Contrast of every piece of text with what lies behind it, after WCAG 2.2 (1.4.3); the lowest is returned.
CONTRAST = """() => {
  const part = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const colour = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = colour(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  let worst = [21, ""];
  for (const e of document.querySelectorAll("body *:not(script):not(style)")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.offsetParent && !e.closest("svg")) continue;
    const style = getComputedStyle(e);
    const ink = colour(e.closest("svg") ? style.fill : style.color);
    const pair = [light(ink), light(behind(e))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.textContent.trim().slice(0, 40)];
  }
  return worst;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_both_schemes(browser, address, scheme):
    tab = browser.new_page(viewport={"width": 900, "height": 900}, color_scheme=scheme)
    tab.goto(address)
    tab.wait_for_function("document.documentElement.dataset.plots === '19'")
    ratio, text = tab.evaluate(CONTRAST)
    assert ratio >= 4.5, f"{text!r} has a contrast of {ratio:.2f}"
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    tab.close()


def test_the_keyboard_reaches_the_verdict_the_sections_and_the_tables(browser, address):
    tab = browser.new_page(viewport={"width": 360, "height": 800})
    tab.goto(address)
    reached = []
    for _ in range(60):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.getAttribute('href') || document.activeElement.ariaLabel"))
    assert reached[0] == "#main"
    targets = {place for place in reached if place and place.startswith("#")}
    assert len(targets) == 17
    assert all(tab.query_selector(place) for place in targets)
    assert reached.index("The twelve weighted metrics") > reached.index("Copying") > reached.index("#provenance")
    tab.locator("summary").first.focus()
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Enter")
    assert tab.locator("details").first.get_attribute("open") is not None
    tab.close()


def test_the_colours_can_be_switched_by_hand(browser, address):
    tab = browser.new_page(viewport={"width": 768, "height": 800}, color_scheme="light")
    tab.goto(address)
    background = "getComputedStyle(document.body).backgroundColor"
    assert tab.evaluate(background) == "rgb(255, 255, 255)"
    button = tab.get_by_role("button", name="Dark")
    assert button.get_attribute("aria-pressed") == "false"
    button.focus()
    tab.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert tab.evaluate(background) != "rgb(255, 255, 255)"
    button.click()
    assert tab.evaluate(background) == "rgb(255, 255, 255)"
    tab.close()


def test_the_page_prints_within_the_paper(browser, address):
    tab = browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme="dark")
    tab.goto(address)
    tab.wait_for_function("document.documentElement.dataset.plots === '19'")
    document = tab.pdf(format="A4")
    assert document.startswith(b"%PDF")
    assert 3 <= document.count(b"/Type /Page\n") + document.count(b"/Type /Page ") <= 22
    tab.emulate_media(media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tab.close()
