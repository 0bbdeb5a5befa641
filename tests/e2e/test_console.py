"""People use the web console in a real browser, against the deployed stack with a rollout under way."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect
from support import fleet
from support.browser import PATIENCE_MS, chromium, settle, sign_in
from support.drops import key, make_drop

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
DEVICES = 10_000
HOSTILE = "<img src=x onerror=\"document.title='gone'\"><script>document.title='gone'</script>"
HOSTILE_REASON = "<b onmouseover=alert(1)>low battery</b>"
PLAN = {
    "waves": [{"percent": 1, "soak": "6h"}, {"percent": 10, "soak": "24h"}, {"percent": 100}],
    "abort": {"failed_percent": 50},
}
FAILURES = {
    "image_sha256_mismatch": ("failed", 7),
    HOSTILE_REASON: ("rejected", 11),
    "self_test_failed": ("rolled_back", 13),
}

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def devices():
    return fleet.macs(DEVICES, 0x6B)


class Rollout:
    """A release that is rolling out to a fleet, and the devices that its first wave told."""

    def __init__(self, product, release_id, told):
        self.product = product
        self.release_id = release_id
        self.told = told

    @property
    def view(self):
        return f"#/releases/{self.release_id}"


@pytest.fixture(scope="module")
def roll_out(cloud, pipeline, new_product):
    """Makes a release in waves whose first one is out, for devices that were seen."""

    def make(name, devices, **changes):
        product = new_product(name)
        fleet.see(cloud, product, devices)
        drop = make_drop(product=product, **{"rollout": PLAN} | changes)
        pipeline.drop(f"{product}/app", drop)
        deadline = time.monotonic() + 60
        while not any(release["waves_published"] for release in pipeline.releases(product)):
            assert time.monotonic() < deadline, f"no wave of {product} went out"
            time.sleep(0.2)
        return Rollout(product, drop.release_id, fleet.told(drop.release_id, devices, PLAN["waves"][0]["percent"]))

    return make


@pytest.fixture(scope="module")
def rollout(cloud, roll_out, devices):
    """For 10,000 devices, 1 % of which were told, and reported; some fail."""
    made = roll_out("console", devices, changelog=HOSTILE)
    now = datetime.now(UTC)
    begin, end = now - timedelta(minutes=40), now + timedelta(minutes=4)
    reports = fleet.update(made.told, begin, end, FAILURES)
    fleet.report(cloud, made.release_id, [entry for entry in reports if entry[2] <= now])
    return made


@pytest.fixture(scope="module")
def rejected(pipeline, new_product):
    """A drop that was rejected."""
    product = new_product("console-rejected")
    drop = make_drop(product=product, signer=key("stranger"))
    pipeline.release(f"{product}/app", drop)
    return f"{product}/app"


@pytest.fixture(scope="module")
def people(browser, cloud):
    """Signed-in users, each in a window of his own: the page, by user name."""
    pages = {}

    def window(user="operator"):
        if user not in pages:
            context = browser.new_context(
                viewport={"width": 1280, "height": 900}, timezone_id="Asia/Tokyo", locale="en-GB"
            )
            context.set_default_timeout(PATIENCE_MS)
            pages[user] = page = context.new_page()
            page.problems = []
            page.on("pageerror", lambda error: page.problems.append(str(error)))
            page.on(
                "console", lambda line: page.problems.append(line.text) if "Content Security" in line.text else None
            )
            page.goto(cloud.console_url)
            sign_in(page, cloud, user)
        return pages[user]

    yield window
    for page in pages.values():
        page.context.close()


@pytest.fixture
def open_view(cloud, people):
    """Shows a view to a signed-in user, and checks afterwards that nothing went wrong in his browser."""
    used = []

    def show(view, user="operator"):
        page = people(user)
        page.goto("about:blank")
        page.goto(cloud.console_url + view)
        settle(page)
        used.append(page)
        return page

    yield show
    for page in used:
        page.unroute_all(behavior="wait")
        assert page.problems == []


# --- signing in -------------------------------------------------------------------------------------------------------


def test_person_signs_in_and_comes_back_to_the_view_of_the_link(browser, cloud, rejected):
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(cloud.console_url + "#/rejected")
    expect(page.get_by_role("heading", name="Firmware console")).to_be_visible()
    expect(page.get_by_text(rejected)).to_have_count(0)
    sign_in(page, cloud, "viewer")
    expect(page.get_by_role("heading", name="Rejected drops")).to_be_visible()
    assert "code=" not in page.url
    page.reload()
    expect(page.get_by_role("heading", name=rejected)).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    context.close()


def test_sign_in_that_was_not_begun_here_is_refused(browser, cloud):
    page = browser.new_page()
    page.goto(cloud.console_url + "?code=stolen&state=guessed")
    expect(page.get_by_role("alert")).to_contain_text("not begun here")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    page.close()


def test_viewer_looks_and_does_not_act(open_view, rollout):
    page = open_view(rollout.view, "viewer")
    expect(page.get_by_text("viewer (viewer)")).to_be_visible()
    assert page.get_by_role("button", name="Abort").count() == 0
    # The page does not decide that.
    act = "id => import('./api.js').then(api => api.act(id, {action: 'abort'})).catch(why => [why.status, why.code])"
    answer = page.evaluate(act, rollout.release_id)
    assert answer == [403, "not_an_operator"]


# --- views ------------------------------------------------------------------------------------------------------------


def test_releases_are_listed_with_what_is_going_out(open_view, rollout):
    page = open_view(f"#/releases?product={rollout.product}")
    row = page.get_by_role("link", name=rollout.product)
    expect(row).to_contain_text("Rolling out")
    expect(row).to_contain_text("1 % of the fleet")
    page.get_by_label("State").select_option("Withdrawn")
    expect(page.get_by_text("No release matches.")).to_be_visible()
    page.get_by_role("link", name="Show all").click()
    expect(page.get_by_role("link", name=rollout.product)).to_be_visible()


def test_release_is_shown_with_its_waves_its_devices_and_who_signed_it(open_view, rollout):
    page = open_view(rollout.view)
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{rollout.product} 1.4.0")
    assert page.title() == f"{rollout.product} 1.4.0 · Firmware console"
    waves = page.get_by_role("list").filter(has_text="Wave 1")
    expect(waves.get_by_role("listitem")).to_have_count(3)
    expect(waves).to_contain_text("about 10,000 devices")
    assert page.locator(".tile", has_text="Told").locator("dd").inner_text() == str(len(rollout.told))
    expect(page.get_by_text(key().keyid)).to_be_visible()
    page.get_by_text("Manifest", exact=True).click()
    shown = json.loads(page.locator("#manifest pre").inner_text())
    assert (shown["product"], shown["changelog"]) == (rollout.product, HOSTILE)


def test_plot_shows_as_many_devices_as_reported(open_view, rollout):
    page = open_view(rollout.view)
    plot = page.get_by_role("img", name="Devices by state over time")
    expect(plot).to_be_visible()
    page.get_by_text("As a table").click()
    rows = page.locator("#timeline-table tbody tr")
    assert 10 < rows.count() <= 62
    counts = [int(cell) for cell in rows.last.locator("td.count").all_inner_texts()]
    tiles = {name: int(page.locator(".tile", has_text=name).locator("dd").inner_text()) for name in ("Told", "Silent")}
    assert sum(counts) == tiles["Told"] - tiles["Silent"]
    assert rows.last.locator("td.count").count() == page.locator(".plot .area").count()


def test_failing_devices_and_their_reason_are_found_and_the_release_aborted_in_four_clicks(open_view, roll_out, cloud):
    devices = fleet.macs(400, 0x6C)
    made = roll_out(
        "console-abort",
        devices,
        rollout={"waves": [{"percent": 50, "soak": "6h"}, {"percent": 100}], "abort": PLAN["abort"]},
    )
    made.told = fleet.told(made.release_id, devices, 50)
    now = datetime.now(UTC)
    fleet.report(cloud, made.release_id, [(mac, "failed", now, "slot_too_small") for mac in made.told[:9]])
    page = open_view("#/releases")
    page.get_by_role("link", name=made.product).click()  # 1
    expect(page.locator(".reasons")).to_contain_text("slot_too_small")
    expect(page.get_by_role("table").first).to_contain_text(made.told[0])
    page.get_by_role("button", name="Abort").click()  # 2
    dialog = page.get_by_role("dialog")
    told = len(made.told)
    expect(dialog).to_contain_text(f"the other {400 - told} devices never hear of it")
    expect(dialog).to_contain_text(f"Of the {told} devices that were told, {told - 9} have not ended yet")
    dialog.get_by_role("button", name="Abort").click()  # 3
    expect(page.get_by_text("Withdrawn: an operator aborted it.")).to_be_visible()
    expect(page.locator("article").get_by_text("operator", exact=True)).to_be_visible()
    assert page.get_by_role("group", name="Actions").get_by_role("button").count() == 0
