"""No private key is ever tracked, and nothing of the machine it was made on."""

import re

from tests.promises.checkout import PRIVATE_KEY, ROOT, name_of, tracked_files

_PROVIDER_KEY = re.compile(
    rb"sk-ant-(?:api|oat)\d\d-[A-Za-z0-9_-]{60,}|sk-proj-[A-Za-z0-9_-]{60,}|AKIA[0-9A-Z]{16}\b|ghp_[A-Za-z0-9]{36}"
)
_HOME = re.compile(rb"/(?:home|Users)/(?!runner\b|you\b|alice\b|me\b|user\b)[a-z][a-z0-9_-]*/")


def test_no_private_key_is_tracked() -> None:
    for path in tracked_files():
        assert not PRIVATE_KEY.search(path.read_bytes()), name_of(path)
        assert path.suffix not in {".pem", ".key", ".p12", ".pfx", ".jks"}, name_of(path)


def test_no_credential_of_a_provider_is_tracked() -> None:
    for path in tracked_files():
        for found in _PROVIDER_KEY.findall(path.read_bytes()):
            # Tests of the masks spell the alphabet, or take the one of the provider's documentation.
            assert b"abcdef" in found or b"EXAMPLE" in found, name_of(path)


def test_the_certificate_folder_holds_its_instructions_alone() -> None:
    tracked = {name_of(path) for path in tracked_files() if path.is_relative_to(ROOT / "certs")}
    assert tracked <= {"certs/README.md", "certs/trust.sh"}


def test_no_file_names_a_home_folder() -> None:
    for path in tracked_files():
        found = _HOME.search(path.read_bytes())
        assert not found, f"{name_of(path)}: {found and found[0]!r}"
