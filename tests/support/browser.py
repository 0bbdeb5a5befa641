"""A headless Chromium in which people use the console."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from local_cloud import LocalCloud
from playwright.sync_api import Browser, Page, sync_playwright

# However loaded the machine is.
PATIENCE_MS = 60_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's browser, or another that is on PATH; nothing is downloaded."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium, with which the console is tested; get one: tools/install_packages.sh test")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-proxy-server"], chromium_sandbox=False
        )
        yield browser
        browser.close()


def sign_in(page: Page, cloud: LocalCloud, user: str) -> None:
    """Sign in from the console's page that is shown, through Cognito's."""
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill(cloud.console_passwords[user])
    page.get_by_role("button", name="Sign in").click()
    page.locator("#who").wait_for()


def settle(page: Page) -> None:
    """Wait until the present view has been read."""
    page.locator("#updated:not(:empty)").wait_for()
