#!/usr/bin/env bash
# Makes a node's key, on the node itself: the private half never leaves it.
#
#   deploy/node-key.sh OUTDIR [NAME]
#
# OUTDIR then holds NAME.key (--auth-supernode-private-key, readable by its owner alone) and NAME.pub,
# to be sent to whoever runs the SuperLink, who lets the node in by
#
#   flwr supernode register NAME.pub CONNECTION
#
# Flower takes public keys in OpenSSH's form on a NIST curve; those of openssl it refuses. A key that
# is there is never overwritten: who loses it is a new node.
set -euo pipefail
[ $# -ge 1 ] && [ $# -le 2 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
command -v ssh-keygen >/dev/null || { echo "node-key.sh: install openssh-client" >&2; exit 1; }
out=$1 name=${2:-node}
umask 077
mkdir -p "$out"
if [ -e "$out/$name.key" ]; then
    echo "node-key.sh: $out/$name.key is there already: name another, or remove it yourself" >&2
    exit 1
fi
ssh-keygen -q -t ecdsa -b 384 -N "" -C "$name" -f "$out/$name.key"
mv "$out/$name.key.pub" "$out/$name.pub"
chmod 600 "$out/$name.key"
chmod 644 "$out/$name.pub"
echo "$out/$name.pub: send it to whoever runs the SuperLink; $out/$name.key stays here"
