#!/bin/sh
# A real sshd that logs to the journald of journald.sh, for tests. Start it in a mount namespace of its own, as root:
#
#     unshare --mount sh sshd.sh DIR CONFIG
#
# DIR is that of journald.sh, which runs. sshd finds its /run there, and a /dev whose log is that journald's.
set -eu
dir=$1
config=$2
mkdir -p "$dir/run/sshd" "$dir/dev"
chmod 755 "$dir/run/sshd"
mount -t tmpfs -o mode=755 tmpfs "$dir/dev"
for node in null zero full random urandom tty; do
    : > "$dir/dev/$node"
    mount --bind "/dev/$node" "$dir/dev/$node"
done
mkdir "$dir/dev/pts"
mount --rbind /dev/pts "$dir/dev/pts"
ln -s pts/ptmx "$dir/dev/ptmx"
ln -s /run/systemd/journal/dev-log "$dir/dev/log"
mount --bind "$dir/run" /run
mount --move "$dir/dev" /dev
exec /usr/sbin/sshd -D -f "$config"
