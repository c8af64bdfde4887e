#!/bin/sh
# Installs what the tests against real compilers, servers and load generators need: Debian packages, as root. Does nothing
# if all is there.
set -eu

# command:package
needs="gcc:gcc nginx:nginx-light haproxy:haproxy wrk:wrk h2load:nghttp2-client npm:npm chromium:chromium slowhttptest:slowhttptest openssl:openssl"
PATH=$PATH:/usr/sbin:/sbin
missing=""
for need in $needs; do
	command -v "${need%%:*}" >/dev/null || missing="$missing ${need##*:}"
done
# The C library's headers come apart from the compiler.
[ -e /usr/include/stdlib.h ] || missing="$missing libc6-dev"
# The conformance suite of HTTP/2.
command -v h2spec >/dev/null || GOBIN=/usr/local/bin go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
# The CA that certificates are issued by in tests.
command -v pebble >/dev/null || GOBIN=/usr/local/bin go install github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "install.sh: these Debian packages are missing:$missing" >&2
	echo "install.sh: install them, or run this as root on Debian" >&2
	exit 1
fi
# Packages of servers must not start them.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086 # a list
apt-get install -q -y --no-install-recommends $missing
