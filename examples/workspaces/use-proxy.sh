#!/bin/sh
# Prints the variables that send a workspace's tools through aiproxyd, and fetches the CA they must trust. For machines without aiproxyd;
# where it is installed, `aiproxyd env` does the same.
#
#   AIPROXYD_PROXY=http://proxy.internal:8888 AIPROXYD_ADMIN=http://proxy.internal:8889 AIPROXYD_USER=alice AIPROXYD_TOKEN=… \
#       sh use-proxy.sh                  export lines:         eval "$(sh use-proxy.sh)"
#       sh use-proxy.sh --dotenv         NAME=value lines:     sh use-proxy.sh --dotenv >> "$GITHUB_ENV"
#
# AIPROXYD_CA_DIR is where certificates are kept; ~/.config/aiproxyd when absent. Tokens of `aiproxyd user add` need no percent-encoding.
set -eu

fail() {
    printf 'use-proxy.sh: %s\n' "$1" >&2
    exit 1
}

format=export
case ${1-} in
    '') ;;
    --dotenv) format=dotenv ;;
    *) printf 'usage: use-proxy.sh [--dotenv]\n' >&2; exit 2 ;;
esac
: "${AIPROXYD_PROXY:?is the URL of the proxy, such as http://proxy.internal:8888}"
: "${AIPROXYD_ADMIN:?is the URL of the admin server, such as http://proxy.internal:8889}"
: "${AIPROXYD_TOKEN:?is the token that aiproxyd user add printed}"
user=${AIPROXYD_USER:-$(id -un)}
folder=${AIPROXYD_CA_DIR:-$HOME/.config/aiproxyd}

mkdir -p "$folder"
# Straight, and by the system's own trust: the proxy is not in use yet, or what is set may be of an older CA.
env -u CURL_CA_BUNDLE -u SSL_CERT_FILE curl -fsS --noproxy '*' -o "$folder/ca-cert.pem.new" "$AIPROXYD_ADMIN/ca-cert.pem" || fail "no CA certificate from $AIPROXYD_ADMIN"
grep -q -e '-----BEGIN CERTIFICATE-----' "$folder/ca-cert.pem.new" || fail "what $AIPROXYD_ADMIN sent is no certificate"
mv "$folder/ca-cert.pem.new" "$folder/ca-cert.pem"

# Variables that replace what a tool trusts need the system's roots, too.
bundle=
for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
    if [ -r "$file" ]; then
        bundle=$file
        break
    fi
done
[ -n "$bundle" ] || fail "the system's roots are nowhere; install the package ca-certificates"
cat "$bundle" "$folder/ca-cert.pem" > "$folder/ca-bundle.pem.new"
mv "$folder/ca-bundle.pem.new" "$folder/ca-bundle.pem"

proxy=${AIPROXYD_PROXY%%://*}://$user:$AIPROXYD_TOKEN@${AIPROXYD_PROXY#*://}
no_proxy=${AIPROXYD_NO_PROXY:-localhost,127.0.0.1,::1}

say() {
    if [ "$format" = dotenv ]; then
        printf '%s=%s\n' "$1" "$2"
    else
        printf "export %s='%s'\n" "$1" "$(printf '%s' "$2" | sed "s/'/'\\\\''/g")"
    fi
}

for name in HTTPS_PROXY HTTP_PROXY https_proxy http_proxy; do say "$name" "$proxy"; done
for name in NO_PROXY no_proxy; do say "$name" "$no_proxy"; done
# Added to what a tool trusts.
for name in NODE_EXTRA_CA_CERTS CODEX_CA_CERTIFICATE; do say "$name" "$folder/ca-cert.pem"; done
# In the place of what a tool trusts.
for name in SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE AWS_CA_BUNDLE GIT_SSL_CAINFO; do say "$name" "$folder/ca-bundle.pem"; done
# Node's own fetch, and with it every Node SDK, ignores the others without it (Node 22.21 or newer).
say NODE_USE_ENV_PROXY 1
