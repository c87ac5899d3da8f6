"""A receiver of Outwait's signed webhooks, with nothing but Python's own library.

    export WEBHOOK_SECRET="$(outwait webhook-secret http://127.0.0.1:9000/hook)"
    python examples/receiver.py 9000

`http://` and addresses of your own networks must be named in OUTWAIT_OUTBOUND__ALLOW (127.0.0.1 here).
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer

SECRETS = os.environ["WEBHOOK_SECRET"].split()  # two while they rotate
SEEN: set[str] = set()  # yours to keep in a database: the same delivery may come twice


def genuine(headers: Mapping[str, str], body: bytes) -> bool:
    sent_at = headers.get("webhook-timestamp", "")
    if not sent_at.isdecimal() or abs(time.time() - int(sent_at)) > 300:
        return False  # somebody repeats an old one
    signed = f"{headers.get('webhook-id')}.{sent_at}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in SECRETS]
    expected = ["v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys]
    shown = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(one, other) for one in expected for other in shown)


class Receiver(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_POST(self) -> None:
        """Take one webhook."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if not genuine(self.headers, body):
            self.answer(401)
            return
        delivery = json.loads(body)
        if delivery["delivery_id"] not in SEEN:
            print(delivery["job_id"], delivery["state"], delivery["result"], flush=True)
            SEEN.add(delivery["delivery_id"])
        self.answer(204)  # after it is stored: what is answered with 2xx does not come again

    def answer(self, status: int) -> None:
        """Answer without a body."""
        self.send_response(status)
        self.end_headers()


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
