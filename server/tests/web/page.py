"""Drives Chromium through its WebDriver, with Python's own library alone. Argument: Cargo's target folder."""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

TARGET = sys.argv[1]
SHOTS = os.path.join(TARGET, "web")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
LIMIT = 60
# As WebDriver writes them.
TAB, ENTER = "\ue004", "\ue007"


def ask(url, method="GET", body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=LIMIT) as response:
            return json.load(response).get("value")
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{url}: {error.read().decode()[:2000]}") from None


class Browser:
    def __init__(self, driver, profile):
        arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            # Its sandbox does not start for root; the page is our own.
            arguments.append("--no-sandbox")
        wanted = {"alwaysMatch": {"goog:chromeOptions": {"args": arguments},
                                  "goog:loggingPrefs": {"browser": "ALL"}}}
        made = ask(f"{driver}/session", "POST", {"capabilities": wanted})
        self.session = f"{driver}/session/{made['sessionId']}"

    def post(self, path, body=None):
        return ask(f"{self.session}{path}", "POST", body or {})

    def script(self, text):
        return self.post("/execute/sync", {"script": text, "args": []})

    def find(self, selector):
        return self.post("/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.post(f"/element/{self.find(selector)}/click")

    def text(self, selector):
        return ask(f"{self.session}/element/{self.find(selector)}/text")

    def wait(self, what, done):
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            found = done()
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited in vain for {what}")

    def draw(self, strokes):
        """Strokes of points, which count from the drawing area's middle."""
        canvas = {ELEMENT: self.find("#drawing")}
        for stroke in strokes:
            move = [{"type": "pointerMove", "duration": 20, "origin": canvas, "x": x, "y": y} for x, y in stroke]
            actions = [move[0], {"type": "pointerDown", "button": 0}, *move[1:], {"type": "pointerUp", "button": 0}]
            self.post("/actions", {"actions": [{"type": "pointer", "id": "pen", "actions": actions}]})

    def press(self, key):
        self.post("/actions", {"actions": [{"type": "key", "id": "keys", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]})

    def tab_to(self, wanted):
        """Presses the tabulator until the focus is there."""
        for _ in range(50):
            self.press(TAB)
            if self.script(f"return document.activeElement === {wanted}"):
                return
        raise AssertionError(f"the keyboard does not reach {wanted}")

    def answer(self):
        """The label that the page shows, once it does."""
        return self.wait("an answer", lambda: self.script(
            "return document.querySelector('#answer strong')?.textContent && !busy"
            " ? document.querySelector('#answer strong').textContent : null"))

    def colours(self, scheme):
        self.post("/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {
            "features": [{"name": "prefers-color-scheme", "value": scheme}]}})

    def size(self, width, height):
        self.post("/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}})

    def shot(self, name):
        # All of the page, beyond the window.
        shown = self.post("/goog/cdp/execute", {"cmd": "Page.captureScreenshot",
                                               "params": {"captureBeyondViewport": True}})
        with open(os.path.join(SHOTS, f"{name}.png"), "wb") as file:
            file.write(base64.b64decode(shown["data"]))

    def close(self):
        ask(self.session, "DELETE")


def luminance(colour):
    def linear(value):
        value /= 255
        return value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4
    red, green, blue = map(linear, colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a, b):
    bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


# What of the page is text, with its colour and the first ground behind it.
TEXTS = """
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  return [...document.querySelectorAll('h1, h2, p, td, th, button, figcaption, legend, #way div, span, strong, code')]
    .filter((e) => e.textContent.trim() && e.getClientRects().length && !e.disabled).map((e) => {
      let behind = e;
      while (behind && (rgb(getComputedStyle(behind).backgroundColor)[3] === 0)) behind = behind.parentElement;
      return [e.textContent.trim().slice(0, 40), rgb(getComputedStyle(e).color).slice(0, 3),
              rgb(getComputedStyle(behind || document.body).backgroundColor).slice(0, 3)];
    });
"""

# Three digits as strokes.
ONE = [[(10, -90), (0, 0), (-8, 90)]]
SEVEN = [[(-60, -75), (0, -78), (60, -75), (25, 0), (-5, 90)]]
ZERO = [[(0, -90), (-50, -50), (-60, 0), (-50, 55), (0, 90), (50, 55), (60, 0), (50, -50), (0, -90)]]


def check(browser, address, report):
    browser.size(1200, 900)
    start = time.monotonic()
    browser.post("/url", {"url": address})
    browser.wait("the page", lambda: browser.script("return model !== null && document.querySelectorAll('#samples button').length"))
    print(f"usable after {time.monotonic() - start:.2f} s")
    assert "minionn" in browser.text("#title"), browser.text("#title")

    right = 0
    for label, strokes in (("1", ONE), ("7", SEVEN), ("0", ZERO)):
        browser.click("#clear")
        browser.script("document.getElementById('answer').textContent = ''")
        browser.draw(strokes)
        browser.click("#predict")
        answer = browser.answer()
        print(f"drew {label}, read {answer}")
        right += answer == label
        assert "bit for bit" in browser.text("#why"), browser.text("#why")
    # A network may misread a drawing; not most of them.
    assert right >= 2, "digits that were drawn are not read"

    # What was sent is noise: nearly all values occur, about as often where the input is blank, and it is not the input.
    kept, sent = (browser.script(f"return [...document.getElementById('{name}').getContext('2d')"
                                 ".getImageData(0, 0, 140, 140).data].filter((_, i) => i % 20 === 0"
                                 " && Math.floor(i / 560) % 5 === 0)") for name in ("input", "sent"))
    assert len(kept) == len(sent) == 28 * 28, (len(kept), len(sent))
    assert len(set(sent)) > 200, f"{len(set(sent))} values were sent"
    blank = [after for before, after in zip(kept, sent) if before == 0]
    assert len(set(blank)) > 150 and blank.count(0) < 20, "where nothing was drawn, no noise was sent"
    way = browser.text("#way")
    for part in ("this device", "gateway", "remote-1", "remote-2", "ms"):
        assert part in way, way
    cost = browser.text("#cost")
    assert "bytes sent" in cost and "none" in cost, cost

    # By keyboard alone: the eighth picture to choose from, then Predict.
    browser.script("document.getElementById('answer').textContent = ''")
    for wanted in ("document.querySelectorAll('#samples button')[7]", "document.getElementById('predict')"):
        browser.tab_to(wanted)
        browser.press(ENTER)
    assert browser.answer() == "7", browser.text("#answer")

    for scheme in ("light", "dark"):
        browser.colours(scheme)
        for name, width in (("wide", 1200), ("narrow", 360)):
            browser.size(width, 900)
            browser.shot(f"try-{name}-{scheme}")
            wide = browser.script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{name}: {wide} pixels are beyond the window"
        pale = [(text, round(contrast(colour, ground), 2)) for text, colour, ground in browser.script(TEXTS)
                if contrast(colour, ground) < 4.5]
        assert not pale, f"{scheme}: too little contrast: {pale}"

    browser.size(1200, 900)
    browser.click("#show-report")
    if report:
        browser.wait("the report", lambda: browser.script(
            "return document.getElementById('report-frame').contentDocument?.body?.textContent.includes('report')"))
    else:
        assert "seco bench paper" in browser.text("#no-report")
    browser.shot("report")
    browser.click("#show-try")
    logged = [entry for entry in browser.post("/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]
    assert not logged, logged


def main():
    os.makedirs(SHOTS, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "index.html"), "w") as file:
            file.write("<!doctype html><title>r</title><p>a report</p>")
        demo = subprocess.Popen(
            [os.path.join(TARGET, "release", "seco"), "demo", "--web", "--report", folder],
            stdout=subprocess.PIPE, text=True)
        driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            port = next(line.rsplit(" ", 1)[1].strip(".\n") for line in driver.stdout if "successfully on port" in line)
            address = next(line.split()[1] for line in demo.stdout if line.startswith("Open "))
            browser = Browser(f"http://127.0.0.1:{port}", os.path.join(folder, "profile"))
            try:
                check(browser, address, True)
            finally:
                browser.close()
            demo.send_signal(2)
            demo.wait(30)
        finally:
            for process in (demo, driver):
                process.kill()
                process.wait()
    print(f"the demo's page is right; screenshots are in {SHOTS}")


main()
