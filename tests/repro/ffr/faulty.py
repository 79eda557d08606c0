"""An OpenAI-compatible server, run as a process, that answers as the model's name says.

Prints its port, then appends every request's path, Authorization and body to the file argv[1].
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATCH = {
    "error_class": "spatial", "key_frames": [1, 2], "temporal_markers": ["1 s to 2 s"],
    "regions": [], "guidance": "Look at frames 1 and 2.",
}  # fmt: skip
GOOD = f"<think>The student erred.</think><answer>{json.dumps(PATCH)}</answer>"
LEAK = GOOD.replace("Look at frames 1 and 2.", "The answer is B.")
lock = threading.Lock()
seen: dict[str, int] = {}


def completion(text: str | None, **more: Any) -> bytes:
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **more}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        mode = body["model"]
        with lock:
            seen[mode] = seen.get(mode, 0) + 1
            with open(sys.argv[1], "a", encoding="utf-8") as log:
                told = {"path": self.path, "key": self.headers.get("Authorization"), "body": body}
                log.write(json.dumps(told) + "\n")
        getattr(self, f"do_{mode.partition('-')[0]}")(body, seen[mode])

    def reply(self, data: bytes, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def do_good(self, body: Any, n: int) -> None:
        self.reply(completion(GOOD))

    def do_leak(self, body: Any, n: int) -> None:
        self.reply(completion(LEAK if n == 1 else GOOD))

    def do_leaky(self, body: Any, n: int) -> None:
        self.reply(completion(LEAK))

    def do_slow(self, body: Any, n: int) -> None:
        time.sleep(30)
        self.reply(completion(GOOD))

    def do_dripping(self, body: Any, n: int) -> None:
        data = completion(GOOD)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for byte in data:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.1)

    def do_500(self, body: Any, n: int) -> None:
        self.reply(b"internal: " + str(self.headers.get("Authorization")).encode(), 500)

    def do_hiccup(self, body: Any, n: int) -> None:
        self.reply(completion(GOOD)) if n == 3 else self.reply(b"", 503, Retry_After="0")

    def do_limited(self, body: Any, n: int) -> None:
        self.reply(completion(GOOD)) if n > 6 else self.reply(b"slow down", 429)

    def do_401(self, body: Any, n: int) -> None:
        self.reply(str(self.headers.get("Authorization")).encode(), 401)

    def do_truncated(self, body: Any, n: int) -> None:
        self.reply(completion(GOOD)[:-30])

    def do_cut(self, body: Any, n: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(completion(GOOD))
        self.close_connection = True

    def do_cutpatch(self, body: Any, n: int) -> None:
        self.reply(completion(GOOD[:-25]))

    def do_empty(self, body: Any, n: int) -> None:
        self.reply(b"")

    def do_blank(self, body: Any, n: int) -> None:
        self.reply(completion(None))

    def do_huge(self, body: Any, n: int) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(64):
                self.wfile.write(b" " * 2**20)
        except OSError:
            pass
        self.close_connection = True

    def do_latin(self, body: Any, n: int) -> None:
        self.reply(completion(GOOD).replace(b"erred", b"\xe9\xff\xfe"))

    def do_nonsense(self, body: Any, n: int) -> None:
        self.reply(b'{"choices": [["no", {"chat": ' + b"[" * 5000 + b"]" * 5000 + b"}]]}")

    def do_length(self, body: Any, n: int) -> None:
        self.reply(completion(GOOD, finish_reason="length"))

    def do_refuse(self, body: Any, n: int) -> None:
        self.reply(completion(None, message={"refusal": "I cannot"}))

    def do_redirect(self, body: Any, n: int) -> None:
        self.reply(b"", 307, Location=f"http://127.0.0.2:{self.server.server_port}/thief")  # type: ignore[attr-defined]

    def do_gzip(self, body: Any, n: int) -> None:
        import gzip

        self.reply(gzip.compress(b" " * 2**24), Content_Encoding="gzip")

    def do_hangup(self, body: Any, n: int) -> None:
        self.close_connection = True

    def do_text(self, body: Any, n: int) -> None:
        self.reply(completion("<answer>B</answer>"))

    def do_echo(self, body: Any, n: int) -> None:
        """A gullible model: it takes up whatever the student wrote."""
        said = body["messages"][1]["content"][-1]["text"]
        said = json.loads(said[said.index("{") :])["student_reply"]
        self.reply(completion(f"<think>hm {said}</think><answer>{json.dumps(PATCH)}</answer>"))

    def do_tools(self, body: Any, n: int) -> None:
        script = [
            "TOOL_CALL: get_frame(5)\nTOOL_CALL: zoom_region(5, 0.0, 0.5, 0.5, 1.0)",
            "TOOL_CALL: get_temporal_segment(0, 15, stride=5)\nTOOL_CALL: get_frame(99)\n"
            "TOOL_CALL: open_file('/etc/passwd')\nTOOL_CALL: zoom_region(1, 0.9, 0, 0.1, 1)",
            GOOD,
        ]
        self.reply(completion(script[sum(m["role"] == "assistant" for m in body["messages"])]))

    def do_endless(self, body: Any, n: int) -> None:
        last = body["messages"][-1]["content"][-1].get("text", "")
        more = "TOOL_CALL: get_frame(0)\n" * 3
        self.reply(completion(GOOD if "no more tool calls" in last else more))

    def log_message(self, *args: Any) -> None:
        pass


if __name__ == "__main__":
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(http.server_port, flush=True)
    http.serve_forever()
