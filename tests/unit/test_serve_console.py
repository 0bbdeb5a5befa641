"""The console's files, as ServeConsole serves them."""

import graphlib
import json
import re

import pytest
from support.functions import CONTEXT, PROJECT, load_handler, read_event

FOLDER = PROJECT / "functions" / "serve_console" / "console"
SIGN_IN = "https://example.auth.eu-central-1.amazoncognito.com"


@pytest.fixture
def serve(monkeypatch):
    handler = load_handler("serve_console", monkeypatch)

    def call(name="script", **changes):
        return handler.lambda_handler(read_event("serve_console", name) | changes, CONTEXT)

    return call


def file(name):
    return {"pathParameters": {"file": name}}


def test_page_is_served_where_no_file_is_named(serve):
    answered = serve("page")
    assert answered["statusCode"] == 200
    assert answered["headers"]["Content-Type"] == "text/html; charset=utf-8"
    assert answered["body"] == (FOLDER / "index.html").read_text()


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_every_file_is_served_with_its_type(serve, path):
    answered = serve(**file(path.name))
    assert answered["body"] == path.read_text()
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assert answered["headers"]["Content-Type"].split(";")[0] == kinds[path.suffix]


def test_page_asks_for_files_that_are_there_and_for_nothing_elsewhere():
    names = {path.name for path in FOLDER.iterdir()}
    for path in FOLDER.iterdir():
        text = path.read_text()
        wanted = re.findall(r'(?:from|import) "\./([^"]+)"', text)
        if path.suffix == ".html":
            wanted += [link for link in re.findall(r'(?:src|href)="([^"]+)"', text) if not link.startswith("#")]
        assert set(wanted) <= names
        assert set(re.findall(r"https?://[\w.-]+", text)) <= {"http://www.w3.org"}  # the namespace of SVG


def test_no_module_imports_itself_through_others():
    modules = {path.name: path.read_text() for path in FOLDER.glob("*.js")}
    imports = {name: re.findall(r'from "\./([^"]+)"', text) for name, text in modules.items()}
    # No other form of import goes unseen.
    assert [len(found) for found in imports.values()] == [text.count('"./') for text in modules.values()]
    graphlib.TopologicalSorter(imports).prepare()  # its CycleError names the circle


def test_nothing_in_the_page_reads_a_text_as_html_or_as_a_program():
    forbidden = r"innerHTML|outerHTML|insertAdjacent|document\.write|DOMParser|srcdoc|eval\(|Function\("
    scripts = list(FOLDER.glob("*.js"))
    assert scripts
    for path in scripts:
        assert not re.search(forbidden, path.read_text()), path.name
    page = (FOLDER / "index.html").read_text()
    assert not re.search(r'<style|style=|\son\w+=|<script(?! type="module" src=)', page)


def test_first_view_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 150_000


@pytest.mark.parametrize("name", ["page", "script"])
def test_browser_trusts_nothing_else(serve, name):
    headers = serve(name)["headers"]
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": f"'self' {SIGN_IN}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_page_is_told_where_to_sign_in_and_no_secret(serve):
    assert json.loads(serve(**file("config.json"))["body"]) == {"signInUrl": SIGN_IN, "clientId": "exampleclient"}


@pytest.mark.parametrize("name", ["handler.py", "../handler.py", "..%2Fhandler.py", "console", "main.js/", "\0"])
def test_nothing_else_is_served(serve, name):
    answered = serve(**file(name))
    assert (answered["statusCode"], json.loads(answered["body"])["code"]) == (404, "not_found")


def test_file_is_not_sent_again_while_it_is_the_same(serve):
    etag = serve()["headers"]["ETag"]
    again = serve(multiValueHeaders={"if-none-match": [etag]})
    assert (again["statusCode"], again["body"], again["headers"]["ETag"]) == (304, "", etag)
    assert serve(multiValueHeaders={"If-None-Match": ['"x"']})["statusCode"] == 200


def test_page_without_the_slash_is_sent_to_the_one_with_it(serve):
    context = read_event("serve_console", "page")["requestContext"] | {"path": "/console"}
    answered = serve("page", requestContext=context)
    assert (answered["statusCode"], answered["headers"]["Location"]) == (308, "console/")
