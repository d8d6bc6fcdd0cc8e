"""Files of the network's settings are judged before anybody uses them."""

import base64
import ssl

import pytest
import trustme

from aiproxyd.config.schema import Config
from aiproxyd.exceptions import CertificateError
from aiproxyd.mitm.egress import EgressSettings
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


def test_construction_succeeds_with_listener_tls(files):
    config = config_of(*files)
    check_files(config)
    assert isinstance(listener_context_of(config), ssl.SSLContext)


@pytest.mark.parametrize(
    ("url", "authorization"),
    [
        pytest.param("http://proxy.corp:3128", "", id="upstream http"),
        pytest.param("https://proxy.corp", "", id="upstream https and CA"),
        pytest.param("http://user:pass@proxy.corp", "user:pass", id="user:pass"),
        pytest.param("http://user@proxy.corp", "user:", id="user"),
        pytest.param("http://user:@proxy.corp", "user:", id="user:"),
        pytest.param("http://:pass@proxy.corp", ":pass", id=":pass"),
    ],
)
def test_construction_succeeds_with_upstream_http_https_and_ca_and_upstream_auth(files, url, authorization):
    egress = {"upstream_proxy": url, "upstream_proxy_ca_file": files[2]}
    config = Config.model_validate({"egress": egress})
    check_files(config)
    upstream = EgressSettings.of(config).upstream_proxy
    assert upstream is not None
    assert (upstream.context is not None) == url.startswith("https://")
    sent = upstream.url.authorization.removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == authorization


@pytest.mark.parametrize(("which", "setting"), [(0, "listen_tls"), (1, "listen_tls"), (2, "egress.upstream_proxy_ca_file")])
@pytest.mark.parametrize("mistake", ["missing", "rubbish"])
def test_each_file_that_cannot_be_used_is_named(files, which, setting, mistake):
    if mistake == "missing":
        files[which].unlink()
    else:
        files[which].write_text("rubbish")
    with pytest.raises(CertificateError, match=setting):
        check_files(config_of(*files))
