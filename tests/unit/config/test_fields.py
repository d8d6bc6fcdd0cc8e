from aiproxyd.config.fields import fields_of, section_of
from aiproxyd.config.schema import AdminConfig, AuthConfig, CaConfig, Config, EgressConfig, ProviderConfig, UserConfig


def test_the_kind_of_each_setting_is_known() -> None:
    top = fields_of(Config)
    assert top["providers"].section is ProviderConfig
    assert top["providers"].is_list
    assert top["admin"].section is AdminConfig
    assert not top["admin"].is_list
    assert top["listen"].items_are_text
    assert top["data_dir"].is_path
    assert top["workers"].is_number
    egress = fields_of(EgressConfig)
    assert not egress["allowed_ports"].items_are_text
    assert egress["trust"].is_text
    assert not egress["hosts"].is_text
    assert fields_of(AuthConfig)["mode"].is_text
    assert fields_of(CaConfig)["cert_file"].is_path


def test_secrets_are_known_by_type_and_digests_by_name() -> None:
    assert fields_of(AdminConfig)["token"].is_secret
    assert fields_of(UserConfig)["token_sha256"].is_secret
    assert not fields_of(UserConfig)["name"].is_secret


def test_settings_that_need_a_restart_are_known() -> None:
    assert fields_of(Config)["workers"].needs_restart
    assert not fields_of(AuthConfig)["mode"].needs_restart


def test_a_section_is_found_by_its_place() -> None:
    assert section_of([]) is Config
    assert section_of(["auth", "users"]) is UserConfig
    assert section_of(["auth", "mode"]) is None
    assert section_of(["nothing", "at", "all"]) is None
