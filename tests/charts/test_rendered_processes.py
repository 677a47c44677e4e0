"""The containers of rendered charts, run as processes here: their command lines and environments really work."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import redis

from testing.node import NOWHERE, PUBLIC_KEY, REGION_CREDENTIAL, write_snapshot
from tests.charts.rendering import CONTROL_PLANE, DATA_PLANE, deployment, manifest, render, with_required
from tests.integration.node.test_process import CONFIG
from tidegate.stack.child import Child, wait_until_done, wait_until_ready
from tidegate.stack.ports import free_ports
from tidegate.stack.store import valkey_binary

PLACE = {"TIDEGATE_HOST": "127.0.0.1"}


def environment(container: dict[str, Any], secrets: dict[tuple[str, str], str]) -> dict[str, str]:
    """What Kubernetes would set: values with $(NAME) filled in, the pod's name, secrets by name and key."""
    env: dict[str, str] = {}
    for entry in container["env"]:
        source = entry.get("valueFrom", {})
        if "secretKeyRef" in source:
            env[entry["name"]] = secrets[source["secretKeyRef"]["name"], source["secretKeyRef"]["key"]]
        elif "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"] == "metadata.name"
            env[entry["name"]] = "edge-5d9c-x2x4z"
        else:
            value = entry["value"]
            for name, known in env.items():
                value = value.replace(f"$({name})", known)
            env[entry["name"]] = value
    return env


def process(container: dict[str, Any], env: dict[str, str], log_path: Path) -> Child:
    """The container's command, found as in the image: where the interpreter's programs are."""
    program = Path(sys.executable).with_name(container["command"][0])
    home = {"HOME": "/nonexistent", "PATH": os.environ["PATH"]}
    return Child(container["command"][0], [program, *container["command"][1:]], env=env | home, log_path=log_path)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_rendered_node_serves_becomes_unready_and_drains(tmp_path, valkey_url):
    asyncio.run(write_snapshot(tmp_path / "snapshot", CONFIG))
    values = {
        "controlPlane": {"url": NOWHERE, "publicKey": PUBLIC_KEY},
        "credential": {"existingSecret": "region", "key": "token"},
        "store": {"bundled": {"enabled": False}, "external": {"existingSecret": "store"}},
        "node": {"trust": "network", "drainSeconds": 1.5},
        "settings": {"REDIS_DEADLINE_MS": 200},
    }
    pod = deployment(render(DATA_PLANE, with_required(DATA_PLANE, values)))["spec"]["template"]["spec"]
    container = pod["containers"][0]
    env = environment(container, {("region", "token"): REGION_CREDENTIAL, ("store", "url"): valkey_url})
    assert env["TIDEGATE_PORT"] == str(container["ports"][0]["containerPort"])
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert str(Path(env["TIDEGATE_SNAPSHOT_FILE"]).parent) in mounts  # all else is read-only
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert env["TIDEGATE_HEALTH_PORT"] == str(ports["health"])
    port, health_port = free_ports(2)
    here = PLACE | {
        "TIDEGATE_PORT": str(port),
        "TIDEGATE_HEALTH_PORT": str(health_port),
        "TIDEGATE_SNAPSHOT_FILE": str(tmp_path / "snapshot"),
    }
    node = process(container, env | here, tmp_path / "node.log")
    node.start()
    try:
        url = f"http://127.0.0.1:{port}"
        probe = container["readinessProbe"]["httpGet"]
        health = f"http://127.0.0.1:{health_port}"
        wait_until_ready(node, lambda: answers(health + probe["path"]), timeout_s=30)
        assert answers(health + container["livenessProbe"]["httpGet"]["path"])
        assert answers(url + probe["path"])
        decision = httpx.post(f"{url}/v1/check", json={"api_key": "tg_acme"}, trust_env=False)
        assert (decision.status_code, decision.json()["region"]) == (200, "us-east")
        assert httpx.get(f"{url}/v1/status", trust_env=False).json()["node"] == "edge-5d9c-x2x4z"

        os.kill(node.pid, signal.SIGTERM)
        wait_until_ready(node, lambda: not answers(health + probe["path"]), timeout_s=5)
        ready = httpx.get(url + probe["path"], trust_env=False)
        assert (ready.status_code, ready.json()["draining"]) == (503, True)
        assert ready.headers["connection"] == "close"
        with httpx.Client(base_url=url, trust_env=False) as client:
            last = client.post("/v1/check", json={"api_key": "tg_acme"})
        assert (last.status_code, last.headers["connection"]) == (200, "close")
    finally:
        node.stop(timeout_s=pod["terminationGracePeriodSeconds"])
    assert node.exit_code() in {0, -signal.SIGTERM}


def test_a_rendered_agent_answers_other_regions_and_ends(tmp_path, valkey_url):
    asyncio.run(write_snapshot(tmp_path / "snapshot", CONFIG))
    values = {
        "controlPlane": {"url": NOWHERE, "publicKey": PUBLIC_KEY},
        "credential": {"existingSecret": "region", "key": "token"},
        "store": {"bundled": {"enabled": False}, "external": {"existingSecret": "store"}},
        "agent": {"drainSeconds": 0.5},
    }
    manifests = render(DATA_PLANE, with_required(DATA_PLANE, values))
    pod = manifest(manifests, "Deployment", "edge-agent")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    env = environment(container, {("region", "token"): REGION_CREDENTIAL, ("store", "url"): valkey_url})
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert (env["TIDEGATE_PORT"], env["TIDEGATE_HEALTH_PORT"]) == (str(ports["peers"]), str(ports["health"]))
    port, health_port = free_ports(2)
    here = PLACE | {
        "TIDEGATE_PORT": str(port),
        "TIDEGATE_HEALTH_PORT": str(health_port),
        "TIDEGATE_SNAPSHOT_FILE": str(tmp_path / "snapshot"),
    }
    agent = process(container, env | here, tmp_path / "agent.log")
    agent.start()
    try:
        health = f"http://127.0.0.1:{health_port}"
        wait_until_ready(agent, lambda: answers(health + container["readinessProbe"]["httpGet"]["path"]), timeout_s=30)
        assert answers(health + container["livenessProbe"]["httpGet"]["path"])
        assert httpx.get(f"http://127.0.0.1:{port}/v1/status", trust_env=False).json()["agent"] == "edge-5d9c-x2x4z"
        # a decision is not its business
        refused = httpx.post(f"http://127.0.0.1:{port}/v1/check", json={"api_key": "tg_acme"}, trust_env=False)
        assert refused.status_code == 404
    finally:
        agent.stop(timeout_s=pod["terminationGracePeriodSeconds"])
    assert agent.exit_code() in {0, -signal.SIGTERM}


def test_the_rendered_migration_and_control_plane_serve(tmp_path, postgres_url):
    (tmp_path / "key").write_text("11" * 32)
    (tmp_path / "token").write_text("an admin token for this test")
    values = with_required(CONTROL_PLANE, {"adminToken": {"existingSecret": "first-admin"}})
    manifests = render(CONTROL_PLANE, values)
    secrets = {("tidegate-database", "url"): postgres_url}

    job = manifest(manifests, "Job")["spec"]["template"]["spec"]["containers"][0]
    migration = process(job, environment(job, secrets), tmp_path / "migration.log")
    migration.start()
    wait_until_done(migration, timeout_s=60)

    container = deployment(manifests)["spec"]["template"]["spec"]["containers"][0]
    env = environment(container, secrets)
    folders = {mount["mountPath"] for mount in container["volumeMounts"]}
    for name in ("TIDEGATE_SIGNING_KEY_FILE", "TIDEGATE_ADMIN_TOKEN_FILE"):
        assert str(Path(env[name]).parent) in folders
        env[name] = str(tmp_path / Path(env[name]).name)
    port = free_ports(1)[0]
    control_plane = process(container, env | PLACE | {"TIDEGATE_PORT": str(port)}, tmp_path / "control-plane.log")
    control_plane.start()
    try:
        url = f"http://127.0.0.1:{port}"
        ready = container["readinessProbe"]["httpGet"]["path"]
        wait_until_ready(control_plane, lambda: answers(url + ready), timeout_s=60)
        token = {"Authorization": "Bearer an admin token for this test"}
        assert httpx.get(f"{url}/v1/regions", headers=token, trust_env=False).status_code == 200
    finally:
        control_plane.stop()


def test_the_bundled_store_starts_as_its_script_says(tmp_path):
    manifests = render(DATA_PLANE, with_required(DATA_PLANE, {"store": {"bundled": {"memoryMegabytes": 64}}}))
    pod = manifest(manifests, "StatefulSet")["spec"]["template"]["spec"]
    env = environment(pod["containers"][0], {("edge-store", "password"): "hush"})
    script = manifest(manifests, "ConfigMap", "edge-store")["data"]["start.sh"]
    port = free_ports(1)[0]
    (tmp_path / "data").mkdir()
    for there, here in {"/run/valkey": tmp_path, "/data": tmp_path / "data", "port 6379": f"port {port}"}.items():
        assert there in script
        script = script.replace(there, str(here))
    (tmp_path / "start.sh").write_text(script)
    (tmp_path / "valkey-server").symlink_to(valkey_binary())
    path = f"{tmp_path}:{os.environ['PATH']}"
    store = Child("store", ["sh", tmp_path / "start.sh"], env=env | {"PATH": path}, log_path=tmp_path / "log")
    store.start()
    try:
        with redis.Redis(port=port, password="hush", decode_responses=True, retry=None) as client:
            wait_until_ready(store, lambda: pings(client), timeout_s=20)
            asked = ("maxmemory", "maxmemory-policy", "appendonly", "protected-mode")
            held = {name: client.config_get(name)[name] for name in asked}
        assert held["maxmemory"] == str(64 * 1024 * 1024)
        assert (held["maxmemory-policy"], held["appendonly"]) == ("noeviction", "yes")
    finally:
        store.stop()
    assert (tmp_path / "valkey.conf").stat().st_mode & 0o077 == 0


def pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
