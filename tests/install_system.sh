#!/usr/bin/env bash
# Installs the programs that tests drive and that pip does not bring. Needs root and apt-get; without them it says what is missing, and
# the tests that need it are skipped.
set -euo pipefail

declare -A package_of=([curl]=curl [openssl]=openssl [git]=git [squid]=squid-openssl [promtool]=prometheus [prometheus-pushgateway]=prometheus-pushgateway [initdb]=postgresql [chromium]=chromium)

missing=()
for program in "${!package_of[@]}"; do
  command -v "$program" >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/$program" >/dev/null || missing+=("${package_of[$program]}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed, tests that need it are skipped: ${missing[*]}" >&2
  exit 0
fi
echo "installing: ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null
# A server that a package brings must not start by itself: tests start their own.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod +x /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
