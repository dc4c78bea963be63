"""The inspector's page in a real browser, against a real relay: what users do, and what hostile callers cannot."""

import base64
import hashlib
import hmac
import json
import re
import socket
import subprocess
import time

import pytest

from tests.support.browser import AXE, PLAIN_HOST, Tab
from tests.support.wire import Wire

LARGE_BYTES = 2_000_000
SHOWN_BYTES = 65_536


def row(page, text):
    return page.locator(".row", has_text=text)


def open_request(page, text):
    """Click a row, and wait until its request is shown."""
    row(page, text).first.click()
    page.get_by_role("tab", name="Body").wait_for()


def show(page, tab):
    page.get_by_role("tab", name=tab).click()


def test_a_first_request_takes_one_click_and_one_paste(relay, browser):
    """The button makes a token with history; the curl line that is shown works as it is; the request appears."""
    with Tab(browser) as tab:
        tab.allowed.append("400 (Bad Request)")  # a relay without mailboxes is asked for one first
        page = tab.page
        page.goto(relay.url)
        page.get_by_role("button", name="Make a URL").click()
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator(".copy-line", has_text="curl").get_by_role("button").click()
        page.get_by_role("button", name="Copied").wait_for()
        line = page.evaluate("navigator.clipboard.readText()")
        page.locator(".connection.live").wait_for()
        relay.giveaways |= set(re.findall(r"/go/(\w+)", line))
        assert subprocess.run(["bash", "-c", f"{line} -s"], capture_output=True, check=True)
        open_request(page, "/hello")
        assert page.locator(".lines").inner_text().strip() == '{\n  "hello": "world"\n}'
        assert page.locator(".copy-line", has_text="listen").count() == 0


def test_the_secret_is_in_no_url(relay, tab, inspected):
    """The secret of the fragment is in `sessionStorage`, and gone from the address bar, before the first fetch."""
    token = inspected()
    token.send("/a")
    page = tab.page
    page.goto(token.link())
    row(page, "/a").wait_for()
    fetches = page.evaluate("fetches")
    assert len(fetches) >= 3
    assert not [place for call in fetches for place in call if token.secret in place]
    assert not [request.url for request in tab.requests if token.secret in request.url]
    assert not [
        request
        for request in tab.requests
        if "referer" in request.headers and token.token in request.headers["referer"]
    ]
    assert page.evaluate("Object.values(sessionStorage)") == [token.secret]
    assert page.evaluate("JSON.stringify(localStorage)").count(token.secret) == 0
    assert {request.url.split("/")[2] for request in tab.requests} == {relay.url.split("/")[2]}
    page.reload()
    row(page, "/a").wait_for()


def test_a_wrong_secret_is_asked_for_again(tab, inspected):
    """With a wrong secret the page says so, shows nothing, and opens with the right one."""
    token = inspected()
    token.send("/a")
    tab.allowed.append("401 (Unauthorized)")
    page = tab.page
    page.goto(token.link().replace(token.secret, "s2m_wrong"))
    page.get_by_role("heading", name="This secret does not open the URL").wait_for()
    page.get_by_label("Secret").fill(token.secret)
    page.get_by_role("button", name="Open", exact=True).click()
    row(page, "/a").wait_for()


def test_the_filter_is_in_the_url_and_its_errors_are_shown(tab, inspected):
    """A filter narrows the list, what arrives too, survives a reload, and says where it does not parse.

    The list says that nothing matches, also beside a request that is open.
    """
    token = inspected()
    for path in ("/orders/1", "/users/1", "/orders/2"):
        token.send(path, b'{"n": 1}', content_type="application/json")
    tab.allowed.append("400 (Bad Request)")
    page = tab.page
    page.goto(token.link())
    row(page, "/users/1").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("POST /orders/*")
    row(page, "/users/1").wait_for(state="detached")
    assert page.locator(".row").count() == 2
    page.locator(".connection.live").wait_for()
    token.send("/users/2")
    token.send("/orders/3")
    row(page, "/orders/3").wait_for()
    assert "filter=POST" in page.url
    page.reload()
    row(page, "/orders/3").wait_for()
    assert page.locator(".row").count() == 3
    page.get_by_label("Filter").fill('"open')
    page.get_by_role("alert").wait_for()
    assert "column 1" in page.get_by_role("alert").inner_text()
    page.get_by_label("Filter").fill("")
    open_request(page, "/users/2")
    page.get_by_label("Filter").fill("/nothing")
    page.get_by_text("No request matches.").wait_for()
    page.get_by_role("tab", name="Body").wait_for()
    page.get_by_role("button", name="Clear the filter").click()
    row(page, "/users/2").wait_for()


def test_ten_thousand_requests(relay, tab, inspected):
    """The list of 10,000 requests scrolls to its end, and never has 300 rows in the document."""
    token = inspected()
    count, batch = 10_000, 250
    with socket.create_connection(("127.0.0.1", relay.port)) as connection:
        for start in range(0, count, batch):
            head = "POST /v1/go/{}/n/{} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
            connection.sendall("".join(head.format(token.token, start + n) for n in range(batch)).encode())
            answers = 0
            while answers < batch:
                data = connection.recv(1 << 20)
                assert data
                answers += data.count(b"HTTP/1.1 ")
    page = tab.page
    page.goto(token.link())
    row(page, "/n/9999").first.wait_for()
    most = page.evaluate("""async () => {
        const list = document.querySelector('.list');
        let most = 0;
        for (let tries = 0; tries < 1000; tries++) {
            list.scrollTop = list.scrollHeight;
            await new Promise((resolve) => setTimeout(resolve, 20));
            most = Math.max(most, document.querySelectorAll('.row').length);
            if ([...document.querySelectorAll('.path')].some((path) => path.textContent === '/n/0')) return most;
        }
    }""")
    assert 0 < most < 300
    assert page.locator(".overview strong").first.inner_text() == "10,000"
    assert page.locator(".row").first.get_attribute("aria-setsize") == "10000"


def test_a_large_body_is_shown_in_part_and_downloaded_whole(tab, inspected, tmp_path):
    """Of 2 MB the page shows 64 KB until it is asked for all; the download has the same bytes."""
    token = inspected()
    body = json.dumps({f"key {n}": "v" * 40 for n in range(LARGE_BYTES // 56)}).encode()[:LARGE_BYTES]
    body = body[: body.rindex(b", ")] + b"}"
    token.send("/large", body, content_type="application/json")
    page = tab.page
    page.goto(token.link())
    open_request(page, "/large")
    shown = "document.querySelector('.lines').textContent.length"
    assert SHOWN_BYTES * 0.9 < page.evaluate(shown) < SHOWN_BYTES * 1.3
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    path = tmp_path / "body"
    download.value.save_as(path)
    assert path.read_bytes() == body
    page.get_by_role("button", name="Show all").click()
    page.get_by_role("button", name="Show all").wait_for(state="detached")
    assert page.evaluate(shown) > len(body)
    for view in ("Text", "Hex", "Raw"):
        page.get_by_role("button", name=view, exact=True).click()
        assert page.evaluate(shown) > len(body)


def test_what_a_request_holds_never_runs_and_never_renders(relay, tab, inspected):
    """Markup in path, query, headers, fields, keys and files is text in every view."""
    token = inspected()
    markup = "<img src=x onerror=alert(1)><svg onload=alert(2)><script>alert(3)</script>"
    key = markup.replace(" ", "/")
    json_type, form = "application/json", "application/x-www-form-urlencoded"
    body = json.dumps({markup: [markup], "__proto__": {"html": markup}}).encode()
    token.send("/json", body, content_type=json_type, x_markup=markup)
    token.send(
        "/svg", f"<svg xmlns='http://www.w3.org/2000/svg'>{markup}</svg>".encode(), content_type="image/svg+xml"
    )
    token.send("/html", f"<!doctype html>{markup}".encode(), content_type="text/html")
    head = f'content-disposition: form-data; name="{key}"; filename="{key}.svg"\r\ncontent-type: {key}'
    part = f"--x\r\n{head}\r\n\r\n{markup}\r\n--x--\r\n".encode()
    token.send("/multipart", part, content_type="multipart/form-data; boundary=x")
    token.send(f"/form?q={key}", f"{markup}={markup}".encode(), content_type=form)
    page = tab.page
    page.goto(token.link())
    for path in ("/json", "/svg", "/html", "/multipart", "/form"):
        open_request(page, path)
        for view in page.locator(".panel .segments").first.get_by_role("button").all():
            view.click()
            assert "alert(3)" in page.locator(".panel").inner_text() or view.inner_text() == "Hex"
        for part in ("Headers", "Timeline", "Response", "Signature", "Body"):
            show(page, part)
        page.keyboard.press("c")
        page.get_by_role("dialog").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("d")
        page.get_by_role("heading", name="Compare").wait_for()
        page.keyboard.press("Escape")
        made = "img, iframe, object, embed, a, script:not([type=module]), svg[onload], [onerror]"
        assert page.locator(made).count() == 0
    assert all(request.url.startswith(relay.url) for request in tab.requests if not request.url.startswith("blob:"))


def test_json_keeps_digits_order_and_duplicates(tab, inspected):
    """Pretty JSON has every digit of a large integer, the members in their order, and both of a duplicate key."""
    token = inspected()
    token.send("/j", b'{"z":12345678901234567890123,"a":1.10,"z":2}', content_type="application/json")
    page = tab.page
    page.goto(token.link())
    open_request(page, "/j")
    assert (
        page.locator(".lines").inner_text().strip()
        == '{\n  "z": 12345678901234567890123,\n  "a": 1.10,\n  "z": 2\n}'
    )
    assert "more than once" in page.get_by_role("status").filter(has_text="key").inner_text()


def stripe(secret, body):
    now = int(time.time())
    return f"t={now},v1={hmac.new(secret, b'%d.%b' % (now, body), hashlib.sha256).hexdigest()}"


def test_the_wrong_signature_is_found_and_sent_again_with_a_field_changed(tab, inspected):
    """Of many requests the one with a wrong signature is found; edited and signed anew, it arrives so."""
    token = inspected()
    for number in range(112):  # more than a page of the list
        body = b'{"id": %d, "amount": 100}' % number
        signature = stripe(b"other" if number == 7 else b"whsec", body)
        token.send(f"/stripe/{number}", body, content_type="application/json", stripe_signature=signature)
    page = tab.page
    page.goto(token.link())
    open_request(page, "/stripe/111")
    show(page, "Signature")
    page.get_by_label("Signing secret").fill("whsec")
    page.get_by_text("The signature is valid.").wait_for()
    page.get_by_role("button", name="Check the newest 1,000 requests").click()
    page.get_by_role("button", name="1 wrong").first.click()
    row(page, "/stripe/111").wait_for(state="detached")
    assert page.locator(".row").count() == 1
    open_request(page, "/stripe/7")
    page.get_by_text("The signature is wrong.").wait_for()
    page.keyboard.press("e")
    body = page.get_by_role("dialog").get_by_label("Body")
    body.wait_for()
    assert body.evaluate("field => field === document.activeElement")  # what is edited most
    body.fill('{"id": 7, "amount": 250}')
    page.get_by_label("Sign it anew as Stripe").check()
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_text("The edited request was sent.").wait_for()
    page.get_by_text("The signature is valid.").wait_for()
    page.get_by_role("button", name="112 valid").first.wait_for()  # what arrives later is checked, too
    kept = token.newest()
    assert base64.b64decode(kept["body"]) == b'{"id": 7, "amount": 250}'
    assert kept["path"] == "/stripe/7" and kept["replay_of"]
    # The signing secret stays in the page.
    assert not [request.url for request in tab.requests if "whsec" in (request.post_data or "") + request.url]
    assert "whsec" not in page.evaluate("JSON.stringify([localStorage, sessionStorage])")


def test_plain_http(relay, tab, inspected):
    """From plain http, where browsers have neither WebCrypto nor a clipboard API, checks and copies work."""
    token = inspected()
    tab.allowed.append("Cross-Origin-Opener-Policy header has been ignored")
    token.send("/s", b"{}", content_type="application/json", stripe_signature=stripe(b"whsec", b"{}"))
    page = tab.page
    page.goto(token.link(f"http://{PLAIN_HOST}:{relay.port}"))
    open_request(page, "/s")
    assert page.evaluate("[isSecureContext, navigator.clipboard, crypto.subtle]") == [False, None, None]
    show(page, "Signature")
    page.get_by_label("Signing secret").fill("whsec")
    page.get_by_text("The signature is valid.").wait_for()
    page.get_by_role("button", name="Copy URL").click()
    page.get_by_role("button", name="Copied").wait_for()
    page.get_by_label("Filter").focus()
    page.keyboard.press("Control+V")
    assert page.get_by_label("Filter").input_value().endswith(f"/v1/go/{token.token}")


def test_a_narrow_window_has_a_way_back(browser, inspected):
    """At 360 pixels a request takes the place of the list; the button and the browser's own go back to it."""
    token = inspected()
    token.send("/narrow")
    with Tab(browser, 360, 740) as tab:
        page = tab.page
        page.goto(token.link())
        for back in (page.get_by_role("button", name="Back to the list").click, page.go_back):
            open_request(page, "/narrow")
            assert not row(page, "/narrow").is_visible()
            back()
            row(page, "/narrow").wait_for()
            assert "request=" not in page.url


def test_keys(tab, inspected):
    """j, k, r, e, c, d, / and ? do what the help says, and nothing while something is typed."""
    token = inspected()
    for number in range(3):
        token.send("/k", b'{"n": %d}' % number, content_type="application/json")
    page = tab.page
    page.goto(token.link())
    page.locator(".row").nth(2).wait_for()
    page.locator(".connection.live").wait_for()
    body = page.locator(".panel .lines")
    page.keyboard.press("j")
    body.filter(has_text='"n": 2').wait_for()
    page.keyboard.press("j")
    body.filter(has_text='"n": 1').wait_for()
    page.keyboard.press("k")
    body.filter(has_text='"n": 2').wait_for()
    page.keyboard.press("j")
    body.filter(has_text='"n": 1').wait_for()
    page.keyboard.press("d")
    page.locator(".changes", has_text="$.n").wait_for()
    assert page.locator(".changes tr", has_text="$.n").inner_text().split() == ["$.n", "−", "0", "+", "1"]
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    page.get_by_text("The request was sent again.").wait_for()
    page.locator(".row").nth(3).wait_for()
    page.get_by_role("button", name=re.compile("^replay of")).wait_for()  # before, keys may find no request shown
    assert base64.b64decode(token.newest()["body"]) == b'{"n": 1}'
    for key, title in (("c", "Copy as"), ("e", "Edit and replay"), ("?", "Keys and filters")):
        body.wait_for()
        page.keyboard.press(key)
        page.get_by_role("dialog", name=title).wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("dialog", name=title).wait_for(state="detached")
    page.keyboard.press("/")
    page.keyboard.type("rjd")
    row(page, "/k").first.wait_for(state="detached")
    assert page.get_by_label("Filter").input_value() == "rjd"


@pytest.fixture
def wire(relay):
    wire = Wire(relay.port)
    yield wire
    wire.close()


def test_a_cut_stream_goes_on_without_gap_or_duplicate(tab, inspected, wire):
    """The page says that it reconnects; what arrived meanwhile appears once; what was dropped meanwhile is gone."""
    token = inspected()
    token.send("/before")
    tab.allowed.append("net::ERR_")
    page = tab.page
    page.goto(token.link(f"http://127.0.0.1:{wire.port}"))
    page.locator(".connection.live").wait_for()
    token.send("/live")
    row(page, "/live").wait_for()
    working, wire.target = wire.target, 1
    wire.cut()
    page.locator(".connection.reconnecting").wait_for()
    for number in range(3):
        token.send(f"/meanwhile/{number}")
    wire.target = working
    page.locator(".connection.live").wait_for()
    row(page, "/meanwhile/2").wait_for()
    paths = [path.inner_text() for path in page.locator(".row .path").all()]
    assert paths == ["/meanwhile/2", "/meanwhile/1", "/meanwhile/0", "/live", "/before"]
    wire.target = 1
    wire.cut()
    page.locator(".connection.reconnecting").wait_for()
    token.call("DELETE", "/requests")
    token.send("/after")
    wire.target = working
    row(page, "/after").wait_for()
    row(page, "/before").wait_for(state="detached")
    assert page.locator(".row").count() == 1


def test_a_token_that_ends_while_the_page_is_open(tab, inspected, wire):
    """The page says that the URL has ended, and keeps what it lists."""
    token = inspected()
    token.send("/kept")
    tab.allowed += ["404 (Not Found)", "net::ERR_"]
    page = tab.page
    page.goto(token.link(f"http://127.0.0.1:{wire.port}"))
    row(page, "/kept").wait_for()
    page.locator(".connection.live").wait_for()
    token.call("DELETE")
    wire.cut()
    page.locator(".connection.ended").wait_for()
    page.get_by_text("This URL has expired or was deleted").wait_for()
    assert row(page, "/kept").count() == 1
    page.reload()
    page.get_by_role("heading", name="This URL has expired or was deleted").wait_for()


def test_a_relay_that_is_away_and_a_token_without_history(tab, relay, wire):
    """Both have a page of their own, which says what is so and what to do: the button tries without the pause.

    The page's clock stands still before the relay is back, so that nothing but the button tries.
    """
    plain = relay.new_with_secret()
    tab.allowed += ["404 (Not Found)", "net::ERR_"]
    page = tab.page
    page.clock.install()
    base = f"http://127.0.0.1:{wire.port}"
    page.goto(base)
    page.get_by_role("button", name="Make a URL").wait_for()
    working, wire.target = wire.target, 1
    wire.cut()
    page.get_by_role("button", name="Make a URL").click()
    page.get_by_role("alert").filter(has_text="The relay does not answer.").wait_for()
    page.evaluate(f"location.hash = 'token={plain['token']}&secret={plain['secret']}'")
    page.get_by_role("heading", name="The relay does not answer").wait_for()
    button = page.get_by_role("main").get_by_role("button", name="Try now")
    button.wait_for()
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 1)
    page.evaluate("Promise.allSettled(answers)")
    wire.target = working
    button.click()
    page.get_by_role("heading", name="This URL keeps no history").wait_for()


def test_a_notification_is_opt_in(browser, inspected):
    """Nothing is asked before the user wants it; then a notification shows what arrives on a hidden page."""
    token = inspected()
    with Tab(browser) as tab:
        tab.page.context.grant_permissions(["notifications"])
        tab.page.add_init_script("""
            window.notified = [];
            window.asked = 0;
            window.Notification = class { constructor(title) { notified.push(title); } };
            Notification.permission = 'granted';
            Notification.requestPermission = async () => { asked++; return 'granted'; };
        """)
        page = tab.page
        page.goto(token.link())
        page.locator(".connection.live").wait_for()
        assert page.evaluate("asked") == 0
        page.get_by_role("button", name="More").click()
        page.get_by_role("menuitem", name="Notify me of new requests").click()
        page.evaluate("Object.defineProperty(document, 'hidden', { value: true })")
        token.send("/notified")
        page.evaluate("new Promise((resolve) => setInterval(() => notified.length && resolve(), 20))")
        assert page.evaluate("[asked, notified[0], document.title]") == [
            1,
            "POST /notified",
            "(1) socket2me inspector",
        ]


@pytest.mark.parametrize(("width", "height", "scheme"), [(1440, 900, "light"), (360, 740, "dark")])
def test_no_axe_violations_and_nothing_wider_than_the_window(browser, inspected, width, height, scheme):
    """Axe finds nothing wrong in any state, nor in the other colours, and none scrolls sideways. Also /smee."""
    if not AXE.exists():
        pytest.skip("the packages of tests/js are not installed")
    token = inspected()
    body = json.dumps({"text": "x" * 300, "n": [1, True, None, {"a": "b"}]}).encode()
    signature = hmac.new(b"wrong", body, hashlib.sha256).hexdigest()
    for path in ("/a", "/a", "/" + "long" * 60):
        token.send(path, body, content_type="application/json", x_hub_signature_256=f"sha256={signature}")
    other = "dark" if scheme == "light" else "light"
    with Tab(browser, width, height, scheme) as tab:
        page = tab.page

        def check(state):
            assert tab.violations() == [], state
            if state in ("list", "Body", "Signature"):
                page.emulate_media(color_scheme=other)
                assert tab.violations("color-contrast") == [], state
                page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, state

        page.goto(token.relay.url)
        page.get_by_text("Open a URL that you have").click()
        check("start")
        page.goto(f"{token.relay.url}/smee/new")
        page.get_by_text("npx smee-client").wait_for()
        check("channel of smee")
        empty = inspected()
        page.goto(empty.link())
        page.get_by_text("Waiting for the first request").wait_for()
        check("empty")
        page.goto(token.link())
        row(page, "/longlong").wait_for()
        page.locator(".connection.live").wait_for()
        check("list")
        open_request(page, "/a")
        check("Body")
        for part in ("Headers", "Timeline"):
            show(page, part)
            check(part)
        show(page, "Signature")
        page.get_by_label("Signing secret").fill("right")
        page.get_by_role("button", name="Check all").click()
        page.get_by_role("button", name="3 wrong").first.wait_for()
        check("Signature")
        for key, title in (("c", "Copy as"), ("e", "Edit and replay"), ("?", "Keys and filters")):
            page.keyboard.press(key)
            page.get_by_role("dialog", name=title).wait_for()
            check(title)
            page.keyboard.press("Escape")
            page.get_by_role("dialog", name=title).wait_for(state="detached")
        page.keyboard.press("d")
        page.get_by_role("heading", name="Headers").wait_for()
        check("Compare")
