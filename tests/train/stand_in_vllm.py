"""A package called `vllm` for tests of what is around an engine: it keeps its flags, starts a child, and is healthy or dies."""

from pathlib import Path

SERVER = """
import argparse, json, os, pathlib, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass

parser = argparse.ArgumentParser()
parser.add_argument("--host")
parser.add_argument("--port", type=int)
parser.add_argument("--model")
parser.add_argument("--die-of")
parser.add_argument("--die-after", type=float)
known, _ = parser.parse_known_args()
if known.die_of:
    print("INFO all is well so far")
    print("(EngineCore pid=7) ERROR 11-21 [core.py:12]", known.die_of)
    print("RuntimeError: Engine core initialization failed. See root cause above.")
    sys.exit(1)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
seen = {"flags": sys.argv[1:], "pid": os.getpid(), "child": child.pid, "cache": os.environ.get("VLLM_CPU_KVCACHE_SPACE")}
partial = pathlib.Path(KEPT + ".partial")
partial.write_text(json.dumps(seen))
partial.rename(KEPT)
server = HTTPServer((known.host, known.port), Handler)
server.timeout = 0.05
started = time.monotonic()
while known.die_after is None or time.monotonic() - started < known.die_after:
    server.handle_request()
print("torch.OutOfMemoryError: no memory for the engine")
sys.exit(3)
"""


def write_stand_in(folder: Path, kept: Path) -> None:
    """The package below `folder`; a server of it keeps what it was started with in the file `kept`."""
    package = folder / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for parent in (package, package.parent, package.parent.parent):
        (parent / "__init__.py").touch()
    (package / "api_server.py").write_text(f"KEPT = {str(kept)!r}\n{SERVER}", encoding="utf-8")
