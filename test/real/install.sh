#!/bin/sh
# Installs what the tests against real compilers, servers, load generators and the suites of others need: Debian packages, as
# root, and into the folder .tools of the repository what Debian does not have. Does nothing if all is there.
set -eu
cd "$(dirname "$0")/../.."

# command:package
needs="gcc:gcc nginx:nginx-light haproxy:haproxy wrk:wrk h2load:nghttp2-client npm:npm chromium:chromium slowhttptest:slowhttptest openssl:openssl testssl:testssl.sh python3:python3"
PATH=$PATH:/usr/sbin:/sbin
missing=""
for need in $needs; do
	command -v "${need%%:*}" >/dev/null || missing="$missing ${need##*:}"
done
# The C library's headers come apart from the compiler.
[ -e /usr/include/stdlib.h ] || missing="$missing libc6-dev"
# testssl.sh, and the environments of Python.
command -v hexdump >/dev/null || missing="$missing bsdextrautils"
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"

# others installs what comes from elsewhere: each has a folder in .tools, which says its version once it is whole.
others() {
	# The conformance suite of HTTP/2.
	command -v h2spec >/dev/null || GOBIN=/usr/local/bin go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
	# The CA that certificates are issued by in tests.
	command -v pebble >/dev/null || GOBIN=/usr/local/bin go install github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1
	# The interoperability tests of gRPC.
	fresh grpc-interop v1.85.0 && {
		GOBIN=$new go install google.golang.org/grpc/interop/client@v1.85.0 google.golang.org/grpc/interop/server@v1.85.0
		keep grpc-interop
	}
	# The cases of the Autobahn test suite for WebSocket, with a runner that does not need Python 2.
	fresh kosoku 0.1.0 && {
		python3 -m venv "$new"
		"$new/bin/pip" install -q --disable-pip-version-check kosoku==0.1.0
		keep kosoku
	}
	# A WebSocket server of others.
	fresh ws 8.23.0 && {
		npm install --silent --no-save --prefix "$new" ws@8.23.0
		keep ws
	}
	true
}

# fresh tells whether a tool is missing in that version, and makes the folder $new for it.
fresh() {
	[ "$(cat ".tools/$1/.version" 2>/dev/null)" != "$2" ] || return 1
	new=$PWD/.tools/$1
	version=$2
	rm -rf "$new"
	mkdir -p "$new"
}

# keep says that a tool is there, whole.
keep() { echo "$version" >".tools/$1/.version"; }

[ -n "$missing" ] || {
	others
	exit 0
}

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
others
