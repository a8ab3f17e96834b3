#!/usr/bin/env bash
# Makes a trial certificate authority (CA) and a server certificate signed by it, for a SuperLink.
#
#   deploy/certificates.sh OUTDIR [HOST...]
#
# HOST: names or IPv4 addresses by which nodes and users reach the SuperLink; localhost and 127.0.0.1
# are always among them. OUTDIR then holds
#
#   ca.crt                    for everybody: --root-certificates, root-certificates
#   server.crt, server.key    for the SuperLink: --ssl-certfile, --ssl-keyfile (and ca.crt)
#   ca.key                    signs more certificates: keep it off the server, or delete it
#
# Both certificates hold for 365 days (DAYS=30 for another number). Where there is a CA in OUTDIR, it
# signs the new server certificate: nodes keep the ca.crt they have. For trials and closed networks;
# where your organisation has a CA, ask it for the server certificate instead.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
command -v openssl >/dev/null || { echo "certificates.sh: install openssl" >&2; exit 1; }
out=$1; shift
umask 077 # private keys are readable by their owner alone
mkdir -p "$out"
days=${DAYS:-365}

names="DNS:localhost,IP:127.0.0.1"
for host in "$@"; do
    if [[ $host =~ ^[0-9]+(\.[0-9]+){3}$ ]]; then kind=IP; else kind=DNS; fi
    if [[ ! $host =~ ^[A-Za-z0-9*._-]+$ ]]; then
        echo "certificates.sh: '$host' is neither a host name nor an IPv4 address" >&2; exit 2
    fi
    names+=",$kind:$host"
done

if [ ! -f "$out/ca.key" ]; then
    if [ -f "$out/ca.crt" ]; then
        echo "certificates.sh: $out has a ca.crt, but not its ca.key: bring that, or name another folder" >&2
        exit 1
    fi
    openssl ecparam -name secp384r1 -genkey -noout -out "$out/ca.key"
    openssl req -x509 -new -key "$out/ca.key" -sha384 -days "$days" -out "$out/ca.crt" \
        -subj "/CN=BMSFed trial CA" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
fi

openssl ecparam -name secp384r1 -genkey -noout -out "$out/server.key"
openssl req -new -key "$out/server.key" -subj "/CN=${1:-localhost}" |
    openssl x509 -req -CA "$out/ca.crt" -CAkey "$out/ca.key" -CAcreateserial -sha384 \
        -days "$days" -out "$out/server.crt" -extfile <(
        echo "basicConstraints=CA:FALSE"
        echo "keyUsage=critical,digitalSignature"
        echo "extendedKeyUsage=serverAuth"
        echo "subjectAltName=$names"
    ) 2>/dev/null
chmod 644 "$out/ca.crt" "$out/server.crt"
openssl verify -CAfile "$out/ca.crt" "$out/server.crt" >/dev/null
echo "$out/ca.crt, $out/server.crt and $out/server.key: for $names, $days days"
