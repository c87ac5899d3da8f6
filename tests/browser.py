"""A Chromium that tests drive as a person would. Without one they are skipped, and fail in CI."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright, expect

from tests.patience import PATIENCE

expect.set_options(timeout=1000 * PATIENCE)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

ARGUMENTS = (
    "--no-sandbox",  # refused to root, as which tests run in containers
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser with an empty profile, closed in the end: the machine's own Chromium, else Playwright's."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=_executable(playwright.chromium.executable_path), args=ARGUMENTS
        )
        try:
            yield browser
        finally:
            await browser.close()


def _executable(of_playwright: str) -> str:
    browser = next(filter(None, map(shutil.which, NAMES)), of_playwright)
    if not Path(browser).exists():
        missing = "no Chromium was found: install one (`apt-get install chromium`, `playwright install chromium`)"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    return browser
