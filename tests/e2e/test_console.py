"""People use the web console in a real browser, against the deployed stack with a rollout under way."""

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
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
def rollout(cloud, roll_out):
    """For 10,000 devices, 1 % of which were told, and reported; some fail."""
    made = roll_out("console", fleet.macs(DEVICES, 0x6B), changelog=HOSTILE)
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
        page.problems.clear()
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
    with page.expect_navigation(url=cloud.console_url):
        page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    page.go_back()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    expect(page.get_by_text(rejected)).to_have_count(0)
    context.close()


@pytest.fixture
def viewer_page(browser, cloud):
    """The window of a viewer who has just signed in."""
    with browser.new_context() as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(cloud.console_url)
        sign_in(page, cloud, "viewer")
        settle(page)
        yield page


def test_copied_tokens_bring_no_new_ones_after_the_user_signed_out(viewer_page, cloud):
    copied = json.loads(viewer_page.evaluate("sessionStorage.getItem('tokens')"))["refresh"]
    client_id = viewer_page.evaluate("fetch('config.json').then(answer => answer.json()).then(found => found.clientId)")

    def refresh():
        form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": copied}
        return requests.post(f"{cloud.endpoint}/oauth2/token", form, timeout=60)

    assert refresh().status_code == 200
    with viewer_page.expect_navigation(url=cloud.console_url):
        viewer_page.get_by_role("button", name="Sign out").click()
    assert (refresh().status_code, refresh().json()["error"]) == (400, "invalid_grant")


def test_user_who_cannot_reach_cognito_is_signed_out_in_this_tab_and_told_so(viewer_page):
    viewer_page.route("**/oauth2/**", lambda route: route.abort())
    viewer_page.get_by_role("button", name="Sign out").click()
    expect(viewer_page.get_by_role("alert")).to_contain_text("signed out in this tab only")
    expect(viewer_page.get_by_role("button", name="Sign in")).to_be_visible()
    expect(viewer_page.get_by_role("heading", name="Releases")).to_have_count(0)
    assert viewer_page.evaluate("sessionStorage.length") == 0


def test_tokens_that_arrive_while_the_user_signs_out_are_not_kept(viewer_page, cloud):
    held = {}
    viewer_page.route("**/oauth2/*", lambda route: held.update({route.request.url.rsplit("/", 1)[1]: route}))
    expired = base64.urlsafe_b64encode(json.dumps({"exp": 0, "username": "viewer"}).encode()).decode()
    viewer_page.evaluate(
        """access => {
            const tokens = JSON.parse(sessionStorage.getItem("tokens"));
            sessionStorage.setItem("tokens", JSON.stringify({ ...tokens, access }));
            location.hash = "#/rejected";
        }""",
        f".{expired}.",
    )
    wait_for(viewer_page, lambda: "token" in held)
    viewer_page.get_by_role("button", name="Sign out").click()
    wait_for(viewer_page, lambda: "revoke" in held)
    with viewer_page.expect_response("**/oauth2/token"):
        held["token"].continue_()
    with viewer_page.expect_navigation(url=cloud.console_url):
        held["revoke"].continue_()
    expect(viewer_page.get_by_role("button", name="Sign in")).to_be_visible()
    assert viewer_page.evaluate("sessionStorage.length") == 0


def wait_for(page, condition):
    """Let the browser go on until a request that is held back has come."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not condition():
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def test_sign_in_that_was_not_begun_here_is_refused(browser, cloud):
    page = browser.new_page()
    page.goto(cloud.console_url + "?code=stolen&state=guessed")
    expect(page.get_by_role("alert")).to_contain_text("did not start in this tab")
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
    expect(page.get_by_text("No matching releases")).to_be_visible()
    page.get_by_role("link", name="Show all").click()
    expect(page.get_by_role("link", name=rollout.product)).to_be_visible()


def test_release_is_shown_with_its_waves_its_devices_and_who_signed_it(open_view, rollout):
    page = open_view(rollout.view)
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{rollout.product} 1.4.0")
    assert page.title() == f"{rollout.product} 1.4.0 · Firmware console"
    waves = page.get_by_role("list").filter(has_text="Wave 1")
    expect(waves.get_by_role("listitem")).to_have_count(3)
    expect(waves).to_contain_text("about 10,000 devices")
    assert page.locator(".tile", has_text="Notified").locator("dd").inner_text() == str(len(rollout.told))
    expect(page.get_by_text(key().keyid)).to_be_visible()
    page.get_by_text("Manifest", exact=True).click()
    shown = json.loads(page.locator("#manifest pre").inner_text())
    assert (shown["product"], shown["changelog"]) == (rollout.product, HOSTILE)


def test_plot_shows_as_many_devices_as_reported(open_view, rollout):
    page = open_view(rollout.view)
    plot = page.get_by_role("img", name="Devices by state over time")
    expect(plot).to_be_visible()
    page.get_by_text("Show as table").click()
    rows = page.locator("#timeline-table tbody tr")
    assert 10 < rows.count() <= 62
    counts = [int(cell) for cell in rows.last.locator("td.count").all_inner_texts()]
    tiles = {
        name: int(page.locator(".tile", has_text=name).locator("dd").inner_text()) for name in ("Notified", "Silent")
    }
    assert sum(counts) == tiles["Notified"] - tiles["Silent"]
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
    expect(dialog).to_contain_text(f"the other {400 - told} devices will never receive it")
    expect(dialog).to_contain_text(f"Of the {told} devices already notified, {told - 9} have not finished yet")
    dialog.get_by_role("button", name="Abort").click()  # 3
    expect(page.get_by_text("Withdrawn: an operator aborted it.")).to_be_visible()
    expect(page.locator("article").get_by_text("operator", exact=True)).to_be_visible()
    assert page.get_by_role("group", name="Actions").get_by_role("button").count() == 0


def test_rejected_drop_is_shown_with_its_reason(open_view, rejected):
    page = open_view("#/rejected")
    card = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=rejected))
    expect(card).to_contain_text("key_unknown")
    expect(card).to_contain_text("which is not trusted")
    card.get_by_text("Files (rejected by ValidateSignature)").click()
    expect(card).to_contain_text(f"inbox/{rejected}.bin")


def test_device_is_shown_with_its_tags_and_its_history(open_view, cloud, rollout):
    mac = rollout.told[6]  # The first one that failed.
    connection = cloud.connect_database()
    connection.run("INSERT INTO device_tags (tag, mac) VALUES ('site=berlin', CAST(:mac AS macaddr))", mac=mac)
    connection.close()
    page = open_view("#/releases")
    page.get_by_label("Find a device").fill(mac.replace(":", "-").lower())
    page.get_by_label("Find a device").press("Enter")
    expect(page.get_by_text("site=berlin")).to_be_visible()
    first = page.get_by_role("row").nth(1)
    expect(first).to_contain_text("image_sha256_mismatch")
    expect(first).to_contain_text("Failed")
    first.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(rollout.product)


def test_device_that_nobody_knows_is_said_to_be_unknown(open_view):
    page = open_view("#/releases")
    page.get_by_label("Find a device").fill("02-6b-ff-ff-ff-ff")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("alert")).to_contain_text("Unknown device 02:6B:FF:FF:FF:FF")
    page.get_by_label("Find a device").fill("whatever")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("alert")).to_contain_text("“whatever” is not a MAC address")


def test_time_is_the_viewers_and_points_to_utc(open_view, pipeline, rollout):
    page = open_view(rollout.view)
    registered = pipeline.releases(rollout.product)[0]["registered_at"]
    shown = page.locator("dt", has_text="Registered").locator("xpath=following-sibling::dd").get_by_role("time")
    in_tokyo = registered.astimezone(UTC) + timedelta(hours=9)
    expect(shown).to_have_text(f"{in_tokyo:%-d %b %Y, %H:%M:%S}".replace("Sep ", "Sept "))
    in_utc = f"{registered.astimezone(UTC):%-d %b %Y, %H:%M:%S} UTC".replace("Sep ", "Sept ")
    assert shown.get_attribute("title") == in_utc


def test_many_failing_devices_are_paged_through(open_view, cloud, pipeline, new_product):
    product, devices = new_product("console-many"), fleet.macs(DEVICES, 0x6E)
    drop = make_drop(product=product)
    pipeline.release(f"{product}/app", drop)
    now = datetime.now(UTC)
    fleet.report(
        cloud,
        drop.release_id,
        [(mac, "failed" if place % 10 == 0 else "installed", now, "bad_flash") for place, mac in enumerate(devices)],
    )
    page = open_view(f"#/releases/{drop.release_id}")
    assert page.locator(".tile", has_text="Installed").locator("dd").inner_text() == "9,000"
    expect(page.get_by_text("1–50 of 1,000")).to_be_visible()
    first = page.get_by_role("region", name="Devices", exact=True).get_by_role("link").first
    assert first.inner_text() == devices[0]
    page.get_by_role("button", name="Next").press("Enter")
    expect(page.get_by_text("51–100 of 1,000")).to_be_visible()
    expect(first).to_have_text(devices[500])
    expect(page.get_by_role("button", name="Next")).to_be_focused()
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_text("1–50 of 1,000")).to_be_visible()
    page.get_by_label("Show").select_option("All that reported")
    expect(page.get_by_text("1–50 of 10,000")).to_be_visible()


# --- actions ----------------------------------------------------------------------------------------------------------


def test_rollout_is_paused_resumed_and_promoted_with_the_keyboard_alone(open_view, roll_out, pipeline):
    devices = fleet.macs(200, 0x6D)
    made = roll_out("console-steer", devices)
    page = open_view(made.view)
    told = len(fleet.told(made.release_id, devices, 1))

    def act(button, *said):
        tab_to(page, page.get_by_role("button", name=button))
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        for text in said:
            expect(dialog).to_contain_text(text)
        expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(dialog).to_have_count(0)

    act("Pause", f"the other {200 - told} devices wait")
    expect(page.get_by_text("Paused: no further wave")).to_be_visible()
    expect(page.get_by_role("button", name="Promote")).to_have_count(0)
    act("Resume", f"the other {200 - told} devices are notified in the remaining waves")
    expect(page.get_by_text("Rolling out")).to_be_visible()
    act(
        "Promote to wave 2",
        f"about {20 - told} more devices: 10 % of 200 devices in total",
        "Wave 1 is no longer watched",
    )
    expect(page.get_by_role("listitem").filter(has_text="Wave 2")).to_contain_text("watched for 1 d")
    assert pipeline.releases(made.product)[0]["waves_published"] == 2
    done = pipeline.rows("SELECT action, caller FROM audit WHERE release_id = :id ORDER BY id", id=made.release_id)
    assert [entry["action"] for entry in done] == ["pause", "resume", "promote"]
    assert all(entry["caller"].startswith("cognito:operator:") for entry in done)


def tab_to(page, target):
    """Press Tab until something has the focus."""
    page.get_by_role("heading", level=1).focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"Tab does not lead to {target}")


def test_buttons_are_the_actions_that_the_api_allows(open_view, rollout):
    page = open_view(rollout.view)
    buttons = page.get_by_role("group", name="Actions").get_by_role("button")
    expect(buttons).to_have_text(["Promote to wave 2", "Pause", "Abort"])

    def allow_another(route):
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"allowed_actions": [{"action": "promote", "wave": 3}]})

    page.route(f"**/api/releases/{rollout.release_id}", allow_another)
    expect(buttons).to_have_text(["Promote to wave 3"])
    page.route(
        "**/actions",
        lambda route: route.fulfill(
            status=409, json={"code": "action_not_allowed", "message": route.request.post_data}
        ),
    )
    buttons.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Wave 3 goes out now")
    dialog.get_by_role("button", name="Promote to wave 3").click()
    expect(page.get_by_role("alert")).to_contain_text('{"action":"promote","wave":3}')


def test_nothing_is_done_when_the_question_is_cancelled(open_view, rollout, pipeline):
    page = open_view(rollout.view)
    page.get_by_role("button", name="Abort").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Abort")).to_be_focused()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert pipeline.rows("SELECT action FROM audit WHERE release_id = :id", id=rollout.release_id) == []


def test_action_that_came_too_late_is_refused_with_the_reason(open_view, rollout):
    page = open_view(rollout.view)
    refusal = {
        "code": "action_not_allowed",
        "message": "Cannot pause: the rollout is complete.",
        "state": "published",
    }
    page.route("**/actions", lambda route: route.fulfill(status=409, json=refusal))
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(page.get_by_role("alert")).to_contain_text("Cannot pause: the rollout is complete.")


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_view_follows_what_devices_say_until_it_is_told_not_to(open_view, cloud, rollout):
    page = open_view(rollout.view)
    installed = page.locator(".tile", has_text="Installed").locator("dd")
    before = int(installed.inner_text())
    late = [mac for place, mac in enumerate(rollout.told) if place % 7 == 6][:2]
    fleet.report(cloud, rollout.release_id, [(late[0], "installed", datetime.now(UTC), None)])
    expect(installed).to_have_text(str(before + 1))
    page.get_by_role("button", name="Live").click()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.install()
    page.clock.run_for(120_000)
    assert asked == []
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("button", name="Live")).to_have_attribute("aria-pressed", "true")


def test_person_whose_session_ended_signs_in_again_and_is_back_at_once(open_view, cloud, rollout):
    page = open_view(rollout.view)
    page.evaluate("sessionStorage.setItem('tokens', JSON.stringify({access: 'a.eyJleHAiOjB9.c', refresh: 'gone'}))")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Your session has ended")  # with the next reading
    expect(page.get_by_role("heading", level=1)).to_contain_text(rollout.product)
    sign_in(page, cloud, "operator")
    expect(page.get_by_role("heading", level=1)).to_contain_text(rollout.product)
    expect(alert).to_be_empty()


def test_token_that_is_over_is_renewed_without_a_word(open_view, rollout):
    page = open_view(rollout.view)
    over = "{...JSON.parse(sessionStorage.tokens), access: 'a.eyJleHAiOjB9.c'}"
    page.evaluate(f"sessionStorage.setItem('tokens', JSON.stringify({over}))")
    with page.expect_response(lambda response: "/oauth2/token" in response.url) as renewed:
        pass
    assert renewed.value.status == 200
    with page.expect_response(lambda response: response.url.endswith(f"/api/releases/{rollout.release_id}")) as read:
        pass
    assert read.value.status == 200
    expect(page.get_by_role("alert")).to_be_empty()
    # The groups are in the new token too.
    assert page.evaluate("import('./session.js').then(session => session.user())") == {
        "name": "operator",
        "mayAct": True,
    }


@pytest.mark.parametrize("kind", ["away", "failing"])
def test_api_that_fails_is_said_to_and_asked_again(open_view, rollout, kind):
    page = open_view(rollout.view)
    failure = {"code": "temporarily_unavailable", "message": "A service behind the API does not answer."}
    page.route(
        "**/api/releases/*",
        lambda route: route.abort() if kind == "away" else route.fulfill(status=503, json=failure),
    )
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("unreachable" if kind == "away" else failure["message"])
    expect(alert).to_contain_text("Trying again in")
    # What was known stays to be read.
    expect(page.get_by_role("heading", level=1)).to_contain_text(rollout.product)
    page.unroute_all(behavior="wait")
    page.get_by_role("button", name="Try now").click()
    expect(alert).to_be_empty()


def test_empty_stack_says_how_to_make_the_first_release(open_view):
    page = open_view("#/rejected")
    page.route("**/api/releases", lambda route: route.fulfill(json={"releases": []}))
    page.get_by_role("navigation", name="Views").get_by_role("link", name="Releases").click()
    expect(page.get_by_text("No releases yet")).to_be_visible()
    expect(page.get_by_text("aws s3 cp build/app.bin")).to_be_visible()


def test_hostile_text_is_shown_and_never_obeyed(open_view, rollout):
    page = open_view(f"#/releases?product={rollout.product}")
    expect(page.get_by_text(HOSTILE)).to_be_visible()
    page.get_by_role("link", name=rollout.product).click()
    expect(page.locator(".changelog-whole")).to_have_text(HOSTILE)
    expect(page.get_by_role("cell", name=HOSTILE_REASON).first).to_be_visible()
    assert page.locator("main img, main script, main b").count() == 0
    assert "gone" not in page.title()


# --- how it looks, and to whom it is open -----------------------------------------------------------------------------


def test_page_is_small_and_comes_from_one_place(browser, cloud):
    page = browser.new_page()
    answers = []

    def keep(answer):
        answers.append(answer)

    page.on("response", keep)
    page.goto(cloud.console_url)
    page.get_by_role("button", name="Sign in").wait_for()
    assert sum(len(answer.body()) for answer in answers) < 150_000
    assert all(answer.url.startswith(cloud.console_url) and answer.ok for answer in answers)
    assert "default-src 'none'" in answers[0].header_value("content-security-policy")
    page.close()


@pytest.fixture
def views(rollout, rejected):
    return {
        "releases": "#/releases",
        "release": rollout.view,
        "device": f"#/devices/{rollout.told[6]}",
        "rejected": "#/rejected",
    }


@pytest.mark.parametrize("name", ["releases", "release", "device", "rejected"])
def test_view_is_open_to_everybody_in_light_and_dark_wide_and_narrow(open_view, views, name):
    page = open_view(views[name])
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        for shape, size in {"wide": (1280, 900), "narrow": (390, 844)}.items():
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": size[0], "height": size[1]})
            page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}-{shape}.png", full_page=True)
            # Nothing but tables is wider than the screen.
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
            found = Axe().run(page).response["violations"]
            assert [
                (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in {"serious", "critical"}
            ] == []
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_question_is_open_to_everybody(open_view, rollout):
    page = open_view(rollout.view)
    page.get_by_role("button", name="Abort").click()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=SCREENSHOTS / f"question-{scheme}.png")
        found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in {"serious", "critical"}] == []
    page.emulate_media(color_scheme="light")
    page.keyboard.press("Escape")
