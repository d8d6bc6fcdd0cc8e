"""Files of the network's settings are judged before anybody uses them."""

import ssl

import pytest
import trustme

from aiproxyd.config.schema import Config
from aiproxyd.exceptions import CertificateError
from aiproxyd.mitm.network_files import check_files, listener_context_of


@pytest.fixture
def files(tmp_path):
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    certificate, key, roots = tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "roots.pem"
    leaf.cert_chain_pems[0].write_to_path(certificate)
    leaf.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(roots)
    key.chmod(0o600)
    return certificate, key, roots


def config_of(certificate, key, roots):
    return Config.model_validate(
        {
            "listen_tls": {"listen": "127.0.0.1:0", "cert_file": certificate, "key_file": key},
            "egress": {"upstream_proxy": "https://proxy.corp", "upstream_proxy_ca_file": roots},
        }
    )


def test_without_such_settings_there_is_nothing_to_judge():
    assert listener_context_of(Config()) is None
    check_files(Config())


def test_files_that_can_be_used_make_a_context(files):
    config = config_of(*files)
    check_files(config)
    assert isinstance(listener_context_of(config), ssl.SSLContext)


@pytest.mark.parametrize(("which", "setting"), [(0, "listen_tls"), (1, "listen_tls"), (2, "egress.upstream_proxy_ca_file")])
@pytest.mark.parametrize("mistake", ["missing", "rubbish"])
def test_each_file_that_cannot_be_used_is_named(files, which, setting, mistake):
    if mistake == "missing":
        files[which].unlink()
    else:
        files[which].write_text("rubbish")
    with pytest.raises(CertificateError, match=setting):
        check_files(config_of(*files))
