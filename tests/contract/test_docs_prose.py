"""Spelling and plain English of all that people read: pages, help texts, templates, variables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.places import ROOT
from support.prose import (
    RULES,
    Rule,
    find,
    offences,
    plain_markdown,
    plain_messages,
    plain_template,
)

SPELLED = ["docs", "finagent_model", "dags", "airflow", "openspec", "env.example", "MLproject"]
SPELLED += ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
RIGHT = "trough,connexion,combin"
"""Words that codespell takes for misspelt ones."""


def test_spelling_is_right() -> None:
    command = [str(Path(sys.executable).with_name("codespell")), "--ignore-words-list", RIGHT]
    command += ["--skip", "*.js,*.css,*.json,*.jsonl,*.webp,*.ipynb,vendor", *SPELLED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_finds_its_bad_example_alone(rule: Rule) -> None:
    assert rule in [found for found, _ in find(plain_markdown(rule.bad))]
    assert rule not in [found for found, _ in find(plain_markdown(rule.good))]


def test_prose_breaks_no_rule() -> None:
    """`python -m support.prose`, in the folder tests, prints the same."""
    assert offences() == []


def test_markdown_is_read_without_its_code() -> None:
    page = "# What it is\n\nA `mend` and\n\n```bash\nmend\n```\n\n| [seat](x.md) | two |\n"
    assert [text for text in plain_markdown(page) if text] == ["A CODE and", "seat", "two"]


def test_messages_of_a_module_are_read_without_its_docstrings() -> None:
    module = (
        '"""What a module is."""\nname = "a b"\nraise ValueError(f"{name} is no good {name!r}")'
    )
    assert list(plain_messages(module)) == ["VALUE is no good VALUE"]


def test_template_is_read_without_its_markup() -> None:
    page = '<p title="A hint">Two <b>words</b> {{ value }}{% if x %} more{% endif %}</p>'
    assert [text for text in plain_template(page) if text] == ["Two words VALUE more", "A hint"]
