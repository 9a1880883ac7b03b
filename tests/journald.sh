#!/bin/sh
# A real systemd-journald of its own, for tests. It sees a /run of its own, so the machine's journald, if there is one, is left alone.
# Start it in mount namespace of its own:
#
#     unshare [--map-root-user] --mount sh journald.sh DIR [BOOT_ID]
#
# Entries are of the machine's present boot, or of the one that is named. DIR/log then holds the journal's files, for `journalctl --directory`; DIR/run/systemd/journal/socket takes entries as journald's native
# protocol has them, and .../dev-log syslog messages. Orders come by standard input, one a line, each answered with `done`:
#
#     entry FILE    sends the lines of a file, NAME=value each, as one entry of any size
#     rotate        puts the present files aside, and begins new ones; entries that journald has not yet read go into the new ones
#
# At the end of the input journald is stopped.
set -eu
dir=$1
rm -rf "$dir/run"
mkdir -p "$dir/run/systemd/journald.conf.d" "$dir/run/systemd/journal" "$dir/run/log/journal" "$dir/log"
mount --bind "$dir/run" /run
mount --bind "$dir/log" /run/log/journal
if [ -n "${2-}" ]; then
    echo "$2" > "$dir/boot_id"
    mount --bind "$dir/boot_id" /proc/sys/kernel/random/boot_id
fi
# `Audit=`: as the kernel has it, instead of switching its audit off.
cat > /run/systemd/journald.conf.d/test.conf <<END
[Journal]
Storage=volatile
ReadKMsg=no
Audit=
ForwardToSyslog=no
RuntimeMaxFiles=100
END
journald=/lib/systemd/systemd-journald
[ -x $journald ] || journald=/usr/lib/systemd/systemd-journald
$journald &
trap 'kill $! 2> /dev/null; wait' EXIT
while [ ! -S /run/systemd/journal/socket ] || [ ! -S /run/systemd/journal/stdout ]; do
    kill -0 $! && sleep 0.02
done
echo done
while read -r order file; do
    case $order in
    entry) logger --journald="$file" ;;
    rotate)
        before=$(find "$dir/log" -name '*@*.journal' | wc -l)
        kill -USR2 $!
        while [ "$(find "$dir/log" -name '*@*.journal' | wc -l)" = "$before" ]; do sleep 0.02; done
        ;;
    esac
    echo done
done
