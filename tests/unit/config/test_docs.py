from pathlib import Path

import pytest

from aiproxyd.config import docs
from aiproxyd.config.fields import fields_of
from aiproxyd.config.loader import load
from aiproxyd.config.schema import Config
from aiproxyd.config.section import Section

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", sorted(docs.generated()))
def test_the_file_in_the_repository_is_what_the_schema_says(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == docs.generated()[name], "run: python -m aiproxyd.config.docs"


def test_the_example_is_the_default_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(docs.example(), encoding="utf-8")
    assert load(file, {}) == Config()


def _settings(model: type[Section]) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for field in fields_of(model).values():
        found.append((field.name, field.info.description))
        if field.section is not None:
            found += _settings(field.section)
    return found


def test_every_setting_is_described_and_on_the_page() -> None:
    page, example = docs.reference(), docs.example()
    for name, description in _settings(Config):
        assert f"`{name}`" in page or f"## `{name}" in page
        if name not in {
            "admin",
            "ca",
            "auth",
            "decrypt",
            "egress",
            "recording",
            "store",
            "logging",
            "metrics",
            "listen_tls",
            "coder",
            "push",
            "jwt",
            "tracing",
            "pricing",
        }:
            assert description, f"{name} has no docstring"
    for name in fields_of(Config):
        assert f"\n{name}:" in example or f"\n# {name}:" in example


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    assert sorted(file.name for file in docs.write(tmp_path)) == ["config.yaml", "configuration.md"]
    assert docs.write(tmp_path) == []
