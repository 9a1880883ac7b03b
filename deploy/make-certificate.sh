#!/bin/sh
# Makes certificates for a small installation, with openssl: an authority, and with it servers, sources and readers.
#
#   make-certificate.sh authority                     ca.pem, ca.key      once; keep ca.key off the server
#   make-certificate.sh server journal.example.net    server.pem, server.key
#   make-certificate.sh client web-1                  web-1.pem, web-1.key; prints the fingerprint for sigillod.toml
#
# Files are written to the current folder; none is overwritten. An installation that has an authority of its own uses that:
# certificates must be X.509 version 3, and the server's must hold its name or address as subjectAltName.
set -eu
umask 077

need_new() {
    for file in "$@"; do
        [ ! -e "$file" ] || { echo "$0: $file exists; it is not overwritten" >&2; exit 1; }
    done
}

issue() { # name, subjectAltName, extendedKeyUsage
    need_new "$1.pem" "$1.key"
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2>/dev/null
    printf 'subjectAltName=%s\nextendedKeyUsage=%s\nbasicConstraints=critical,CA:false\n' "$2" "$3" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 397 -extfile "$1.ext" -out "$1.pem" 2>/dev/null
    rm "$1.csr" "$1.ext"
}

case "${1:-}" in
authority)
    need_new ca.pem ca.key
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=Sigillo authority" \
        -addext "basicConstraints=critical,CA:true" -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -keyout ca.key -out ca.pem 2>/dev/null
    ;;
server)
    name=${2:?the name or address by which clients reach the server}
    case "$name" in
    *[!0-9.]*) issue server "DNS:$name" serverAuth ;;
    *) issue server "IP:$name" serverAuth ;;
    esac
    ;;
client)
    issue "${2:?the name of the source or reader}" "DNS:$2" clientAuth
    openssl x509 -in "$2.pem" -noout -fingerprint -sha256 | sed 's/.*=/fingerprint = "/; s/$/"/'
    ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
