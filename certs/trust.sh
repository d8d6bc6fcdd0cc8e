#!/bin/sh
# Put a CA certificate into the system's trust store, or take it out again.
# Debian, Ubuntu, Alpine and SUSE; Fedora, RHEL and their kin; Arch; macOS. Changes nothing but the one certificate.
set -eu

usage() {
    cat <<'USAGE'
usage: trust.sh install CERTIFICATE     trust the certificate on this machine (as root)
       trust.sh uninstall CERTIFICATE   stop trusting it (as root)
       trust.sh status CERTIFICATE      say whether it is trusted; exit status 0 when it is, 1 when not

CERTIFICATE is a PEM file with exactly one certificate, such as `aiproxyd ca export --output FILE` writes.

for example:
  aiproxyd ca export --output aiproxyd-ca.pem
  sudo certs/trust.sh install aiproxyd-ca.pem
USAGE
}

fail() {
    printf 'trust.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

# A usage mistake has status 2, as everywhere.
misuse() {
    usage >&2
    fail "$1" 2
}

read_certificate() {
    certificate=$1
    [ -r "$certificate" ] || fail "$certificate cannot be read"
    [ "$(grep -c -e '-----BEGIN CERTIFICATE-----' "$certificate")" = 1 ] || fail "$certificate does not hold exactly one PEM certificate"
    if grep -q -e 'PRIVATE KEY' "$certificate"; then
        fail "$certificate holds a private key, which belongs in no trust store"
    fi
    command -v openssl >/dev/null 2>&1 || fail "openssl is needed and not installed"
    openssl x509 -in "$certificate" -noout -ext basicConstraints 2>/dev/null | grep -q 'CA:TRUE' || fail "$certificate is no CA certificate"
    fingerprint=$(openssl x509 -in "$certificate" -noout -fingerprint -sha256 | sed 's/^.*=//; s/://g')
    # Named after the certificate, so that two CAs do not displace each other and the right one is removed.
    name="aiproxyd-$(printf '%s' "$fingerprint" | cut -c 1-16).crt"
}

# Sets `anchors`, the folder that the system's tool reads, and `refresh`, the tool.
find_store() {
    if [ "$(uname -s)" = Darwin ]; then
        anchors=keychain
        refresh=
    elif command -v update-ca-trust >/dev/null 2>&1 && [ -d /etc/pki/ca-trust/source/anchors ]; then
        anchors=/etc/pki/ca-trust/source/anchors
        refresh='update-ca-trust extract'
    elif command -v update-ca-trust >/dev/null 2>&1 && [ -d /etc/ca-certificates/trust-source/anchors ]; then
        anchors=/etc/ca-certificates/trust-source/anchors
        refresh='update-ca-trust extract'
    elif command -v update-ca-certificates >/dev/null 2>&1 && [ -d /etc/pki/trust/anchors ]; then
        anchors=/etc/pki/trust/anchors
        refresh='update-ca-certificates'
    elif command -v update-ca-certificates >/dev/null 2>&1; then
        anchors=/usr/local/share/ca-certificates
        refresh='update-ca-certificates'
    else
        fail "neither update-ca-certificates nor update-ca-trust is there; install the package ca-certificates"
    fi
}

require_root() {
    [ "$(id -u)" = 0 ] || fail "changing the system's trust store needs root; try sudo"
}

refresh_store() {
    # shellcheck disable=SC2086  # a command with its option, set above
    $refresh "$@" >/dev/null || fail "$refresh failed"
}

install_certificate() {
    if [ "$anchors" = keychain ]; then
        security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain "$certificate"
    else
        mkdir -p "$anchors"
        # Without the text some files carry before the certificate, and readable by everybody.
        openssl x509 -in "$certificate" -out "$anchors/$name.new"
        chmod 644 "$anchors/$name.new"
        mv "$anchors/$name.new" "$anchors/$name"
        refresh_store
    fi
    printf 'trusted: %s (SHA-256 %s)\n' "$certificate" "$fingerprint"
}

uninstall_certificate() {
    if [ "$anchors" = keychain ]; then
        security remove-trusted-cert -d "$certificate" || true
        security delete-certificate -Z "$fingerprint" /Library/Keychains/System.keychain
    elif [ -e "$anchors/$name" ]; then
        rm -f "$anchors/$name"
        case $refresh in
            # Without it a link to the certificate stays behind.
            update-ca-certificates) refresh_store --fresh ;;
            *) refresh_store ;;
        esac
    else
        fail "$certificate was not installed by this script"
    fi
    printf 'no longer trusted: %s (SHA-256 %s)\n' "$certificate" "$fingerprint"
}

is_trusted() {
    if [ "$anchors" = keychain ]; then
        security verify-cert -c "$certificate" >/dev/null 2>&1
    else
        [ -e "$anchors/$name" ]
    fi
}

case ${1:-} in
    -h | --help | help)
        usage
        exit 0
        ;;
    install | uninstall | status) ;;
    '') misuse "what to do is missing" ;;
    *) misuse "there is no '$1'" ;;
esac
[ $# -eq 2 ] || misuse "$1 needs one CERTIFICATE"

read_certificate "$2"
find_store
case $1 in
    install)
        require_root
        install_certificate
        ;;
    uninstall)
        require_root
        uninstall_certificate
        ;;
    status)
        if is_trusted; then
            printf 'trusted: %s\n' "$certificate"
        else
            printf 'not trusted: %s\n' "$certificate"
            exit 1
        fi
        ;;
esac
