"""docker-compose.yml without a container engine: its shape, what waits for what, and its secrets.
What this can't show is said in docs/containers.md.
"""

from __future__ import annotations

import re

from finagent_model.settings import Settings
from support.compose import OURS, SERVICES, compose
from support.places import ROOT

ENVIRONMENT = ROOT / "airflow" / "env.example"


def test_compose_has_only_services_with_volumes() -> None:
    found = compose()
    assert {key for key in found if not key.startswith("x-")} == {"name", "services", "volumes"}
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


def test_compose_missing_secret_says_what_to_do() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    given = dict(re.findall(r"\$\{(\w+)(:[?-][^}]*)\}", text))
    named = [
        line.partition("=") for line in ENVIRONMENT.read_text().splitlines() if line[:1] not in "#"
    ]
    assert {name: value for name, _, value in named if name} == dict.fromkeys(given, "")
    for name, otherwise in given.items():
        assert otherwise == (":-" if name == "UPSTREAM_SOURCE" else ":?set it in .env"), name
    for service in SERVICES.values():
        for name, value in service.environment.items():
            if re.search(r"PASSWORD$|SECRET|KEY|TOKEN|CONN$|BACKEND$|BROKER_URL$", name):
                assert "${" in value, name


def test_ports_are_open_to_this_machine_alone() -> None:
    for service in SERVICES.values():
        for port in service.ports:
            assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)


def test_our_services_share_one_image_that_one_of_them_builds() -> None:
    assert len({service.image for service in OURS.values()}) == 1
    [built] = [service.build for service in SERVICES.values() if service.build]
    assert (ROOT / built.dockerfile).is_file()
    assert all(service.security_opt and service.init for service in OURS.values())


def test_what_services_tell_the_desk_are_its_settings() -> None:
    told = {
        name
        for service in SERVICES.values()
        for name in service.environment
        if name.startswith("FINAGENT_")
    }
    assert told <= set(Settings.variable_names())
