"""ServeConsole: the web console's files, with headers that let the browser trust nothing else.

The files hold no secret, and anyone may have them; what they show comes from the API, which wants a signed-in user.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from ota_core.http.api_gateway import RequestRefused, answer, answer_nothing, header, path_parameter

if TYPE_CHECKING:
    from ota_core.formats import contracts

FOLDER = Path(__file__).with_name("console")
INDEX = "index.html"
CONFIGURATION = "config.json"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
HEADERS = {
    # The console changes with every deployment, and its ETag says whether it did.
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
logger = Logger()


@dataclass(frozen=True, slots=True)
class File:
    """The file served under a name."""

    name: str
    text: str

    @property
    def media_type(self) -> str:
        """For Content-Type."""
        return MEDIA_TYPES[Path(self.name).suffix]

    @property
    def etag(self) -> str:
        """The text's digest, as an entity tag."""
        return f'"{hashlib.sha256(self.text.encode()).hexdigest()}"'


FILES = {file.name: File(file.name, file.read_text(encoding="utf-8")) for file in FOLDER.iterdir()}


@logger.inject_lambda_context
def lambda_handler(event: contracts.ApiRequest, context: LambdaContext) -> contracts.ApiAnswer:
    """Answer a browser's request for a file."""
    return answer(event, serve, logger)


def serve(event: contracts.ApiRequest) -> contracts.ApiAnswer:
    """The file that the path names, or the page itself if it names none."""
    name = path_parameter(event, "file") or INDEX
    path = event["requestContext"]["path"]
    if event["resource"] == "/" and not path.endswith("/"):
        # The page links to its parts relative to itself.
        return answer_nothing(308, {"Location": path.rsplit("/", 1)[1] + "/"})
    variables = event["stageVariables"] or {}
    if name == CONFIGURATION:
        text = json.dumps({"signInUrl": variables["signInUrl"], "clientId": variables["clientId"]})
        file = File(name, text)
    elif name in FILES:
        file = FILES[name]
    else:
        raise RequestRefused(404, "not_found", "The console has no such file.")
    headers = {**HEADERS, "ETag": file.etag, "Content-Security-Policy": content_security_policy(variables["signInUrl"])}
    if header(event, "If-None-Match") == file.etag:
        return answer_nothing(304, headers)
    return {
        "statusCode": 200,
        "headers": {**headers, "Content-Type": file.media_type},
        "body": file.text,
        "isBase64Encoded": False,
    }


def content_security_policy(sign_in_url: str) -> str:
    """What the page may load and reach (https://www.w3.org/TR/CSP3/): its own files and API, and the token endpoint.

    With `require-trusted-types-for` the browser itself refuses to read any text as HTML.
    """
    rules = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": f"'self' {sign_in_url}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())
