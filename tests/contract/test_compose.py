"""docker-compose.yml without a container engine: its shape, what waits for what, and its secrets.
What this can't show is said in docs/containers.md.
"""

from __future__ import annotations

import os
import re
import subprocess
from base64 import b64decode
from pathlib import Path

from finagent_model.settings import Settings
from support.compose import OURS, SECRETS, SERVICES, compose
from support.places import ROOT

ENVIRONMENT = ROOT / "airflow" / "env.example"
DATABASES = ROOT / "airflow" / "databases.sql"


def test_compose_has_only_services_with_volumes() -> None:
    found = compose()
    keys = {key for key in found if not key.startswith("x-")}
    assert keys == {"name", "services", "volumes", "secrets"}
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.volumes}
    assert {name for name in mounted if not name.startswith("./")} == set(found["volumes"])
    for name in mounted:
        assert not name.startswith("./") or (ROOT / name).is_file()


def test_who_waits_for_whom_can_be_met() -> None:
    """Health is waited for where it is checked, an end where the service ends; nobody in a ring."""
    order: list[str] = []
    while len(order) < len(SERVICES):
        ready = [
            n for n, s in SERVICES.items() if n not in order and set(s.depends_on) <= set(order)
        ]
        assert ready, set(SERVICES) - set(order)
        order += ready
    for service in SERVICES.values():
        for name, after in service.depends_on.items():
            ends = SERVICES[name].restart == "no"
            assert ends == (after.condition == "service_completed_successfully")
    for name, service in SERVICES.items():
        assert (service.healthcheck is None) == (service.restart == "no"), name


def test_compose_missing_variable_says_what_to_do() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    given = dict(re.findall(r"\$\{(\w+)(:[?-][^}]*)\}", text))
    named = [
        line.partition("=") for line in ENVIRONMENT.read_text().splitlines() if line[:1] not in "#"
    ]
    assert {name: value for name, _, value in named if name} == dict.fromkeys(given, "")
    for name, otherwise in given.items():
        assert otherwise == (":-" if name.startswith("UPSTREAM") else ":?set it in .env"), name


def test_compose_secrets_are_files_alone() -> None:
    """A variable tells where one is, to the program (`_FILE`) or to Airflow (`_CMD`)."""
    for service in SERVICES.values():
        for name, value in service.environment.items():
            if re.search(r"PASSWORD|SECRET|KEY|TOKEN|CONN|BACKEND$|BROKER|DATABASE", name):
                assert re.search(r"_(FILE|CMD)$", name), name
            if name.endswith("_CMD"):
                assert re.fullmatch(r"cat /run/secrets/\w+", value), name
            assert not re.search(r"//[^/@]*:[^/@]*@", value), name


def test_compose_service_gets_the_secrets_it_reads_alone() -> None:
    for name, service in SERVICES.items():
        texts = [*service.environment.values(), *service.command, *service.entrypoint]
        read = set(re.findall(r"/run/secrets/(\w+)", " ".join(texts)))
        if name == "postgres":
            read |= set(re.findall(r"/run/secrets/(\w+)", DATABASES.read_text()))
        assert set(service.secrets) == read, name
    assert set(SECRETS) == {secret for service in SERVICES.values() for secret in service.secrets}
    # The object store's keys are MLflow's server's, and the superuser's password is nobody's.
    holders = {s: {n for n, x in SERVICES.items() if s in x.secrets} for s in SECRETS}
    assert holders["s3_secret_key"] == {"objects", "mlflow"}
    assert holders["postgres_superuser"] == {"postgres"}


def test_make_secrets_makes_each_once(tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run(["sh", str(ROOT / "airflow" / "make_secrets.sh"), str(tmp_path)], check=True)
        made = {file.name: file.read_text() for file in tmp_path.iterdir()}
        assert set(made) == set(SECRETS)
    first = dict(made)
    (tmp_path / "redis_password").unlink()
    subprocess.run(["sh", str(ROOT / "airflow" / "make_secrets.sh"), str(tmp_path)], check=True)
    now = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert {n for n in now if now[n] != first[n]} == {"redis_password"}
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert len(b64decode(made["airflow_fernet_key"], altchars=b"-_")) == 32
    assert all(len(value) >= 20 and value == value.strip() for value in made.values())
    assert made["postgres_finagent"] in made["finagent_database"]
    Settings.load(
        {f"{n.upper()}_FILE": str(tmp_path / n) for n in made if n.startswith("finagent")}
    )


def test_with_secrets_gives_content_of_files(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("open $esame 'x'\n")
    script = (ROOT / "airflow" / "with_secrets.sh").read_text()
    script = script.replace("/run/secrets", str(tmp_path))
    env = {
        "PATH": os.environ["PATH"],
        "AWS_SECRET_ACCESS_KEY_FILE": f"{tmp_path}/one",
        "FINAGENT_API_TOKEN_FILE": f"{tmp_path}/one",
        "ANOTHER_FILE": "/etc/hostname",
    }
    done = subprocess.run(
        ["sh", "-c", script, "with_secrets", "env"], env=env, capture_output=True, text=True
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "_" in line)
    del env["PATH"]
    assert env.pop("AWS_SECRET_ACCESS_KEY_FILE")
    assert found.items() >= (env | {"AWS_SECRET_ACCESS_KEY": "open $esame 'x'"}).items()
    assert "AWS_SECRET_ACCESS_KEY_FILE" not in found


def test_compose_services_can_do_little() -> None:
    for name, service in SERVICES.items():
        assert service.cap_drop == ["ALL"], name
        assert service.security_opt == ["no-new-privileges:true"], name
        assert set(service.logging.options) == {"max-size", "max-file"}, name
        assert not service.read_only or "/tmp" in service.tmpfs, name
    read_only = {n for n, s in SERVICES.items() if s.read_only}
    assert read_only == {"postgres", "redis", "mlflow", "ui", "serve"}
    assert {n for n, s in SERVICES.items() if s.cap_add} == {"objects"}


def test_compose_serve_is_started_by_its_name() -> None:
    """Before the first training there is no version to load, and `up --wait` would wait for it."""
    assert {n: s.profiles for n, s in SERVICES.items() if s.profiles} == {"serve": ["serve"]}
    assert not any("serve" in s.depends_on for s in SERVICES.values())
    server = SERVICES["serve"]
    port = server.command[server.command.index("--port") + 1]
    assert server.ports == [f"127.0.0.1:{port}:{port}"]
    assert server.healthcheck is not None
    assert server.healthcheck.test[-1] == f"http://127.0.0.1:{port}/ping"


def test_compose_mlflow_asks_who_comes() -> None:
    login = SERVICES["mlflow"].entrypoint
    assert "--app-name basic-auth" in (ROOT / "airflow" / Path(login[-1]).name).read_text()
    server = SERVICES["mlflow"].environment["MLFLOW_AUTH_ADMIN_PASSWORD_FILE"]
    clients = [s for s in SERVICES.values() if "MLFLOW_TRACKING_URI" in s.environment]
    assert len(clients) >= 3
    assert {s.environment["MLFLOW_TRACKING_PASSWORD_FILE"] for s in clients} == {server}


def test_ports_are_open_to_this_machine_alone() -> None:
    for service in SERVICES.values():
        for port in service.ports:
            assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)


def test_our_services_share_one_image_that_one_of_them_builds() -> None:
    assert len({service.image for service in OURS.values()}) == 1
    [built] = [service.build for service in SERVICES.values() if service.build]
    assert (ROOT / built.dockerfile).is_file()
    for service in OURS.values():
        assert service.init
        assert service.entrypoint[0] == "/opt/finagent/with_secrets.sh"


def test_what_services_tell_the_desk_are_its_settings() -> None:
    told = {
        name
        for service in SERVICES.values()
        for name in service.environment
        if name.startswith("FINAGENT_")
    }
    assert {name.removesuffix("_FILE") for name in told} <= set(Settings.variable_names())
