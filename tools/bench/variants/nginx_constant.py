"""The floor: nginx reads the same request and answers a constant as long as a decision. No limit at all."""

from tidegate.stack.ports import LOOPBACK
from tools.bench.errors import BenchError
from tools.bench.machine import tool
from tools.bench.place import Place
from tools.bench.variant import Launch, Variant

# As long as what a node answers to a check that one limit allows.
ANSWER = (
    '{"allowed":true,"client":"customer-one-00000","plan":"one","policy":"hourly","limit":1000000000,"window_s":3600,'
    '"remaining":999999999,"reset_after_s":2847.2,"retry_after_s":null,"delay_ms":0.0,"shadow_denied":[],'
    '"degraded":false,"region":"bench","revision":1,"request_id":"bench-1-0123abcd-1"}'
)

CONFIG = """
daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 512; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 75s;
  server_tokens off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen {address}:{port} backlog=512;
    location / {{
      default_type application/json;
      return 200 '{answer}';
    }}
  }}
}}
"""


def _launch(place: Place, port: int) -> Launch:
    binary = tool("nginx")
    if binary is None:
        raise BenchError(
            "nginx is missing: it is the floor that everything is compared with (Debian: apt install nginx)"
        )
    directory = place.directory / "nginx"
    directory.mkdir(exist_ok=True)
    config = directory / "nginx.conf"
    config.write_text(CONFIG.format(directory=directory, address=LOOPBACK, port=port, answer=ANSWER))
    return Launch([binary, "-p", directory, "-c", config, "-e", directory / "error.log"], port, {})


VARIANT = Variant("nginx", "nginx answering a constant (the floor)", _launch)
