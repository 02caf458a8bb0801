#!/bin/sh
# Makes rules/benches/recording.jsonl.gz anew, as root, on a Debian machine with runc, gcc, make and dpkg-dev:
#
#   rules/benches/record.sh RULES.yaml... -- PACKAGE.deb...
#
# In a runc container on a throw-away overlay of this machine's own root: a web server serves the packages on the loopback,
# `apt-get` updates, downloads and installs them from there, and `make` compiles and links a few C files in /src.
# Host, image and pod are stand-ins (see agent/examples/record.rs). Nothing is left behind.
set -eu

rules=
while [ "$1" != -- ]; do rules="$rules $(realpath "$1")"; shift; done
shift
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d /tmp/purser-record-XXXXXX)
id=purser-record-$$
end() {
    runc delete --force "$id" >/dev/null 2>&1 || true
    umount --lazy "$work/bundle/rootfs" 2>/dev/null || true
    umount --lazy "$work" || true
    rmdir "$work"
}
trap end EXIT
trap 'exit 1' INT TERM
mount -t tmpfs none "$work"
mkdir -p "$work/upper/src" "$work/upper/repo" "$work/workdir" "$work/bundle/rootfs" "$work/upper/tmp" \
    "$work/upper/etc/apt"
chmod 1777 "$work/upper/tmp"
cp "$@" "$work/upper/repo"
(cd "$work/upper/repo" && dpkg-scanpackages . /dev/null >Packages 2>/dev/null)
echo 'deb [trusted=yes] http://127.0.0.1:8000 ./' >"$work/upper/etc/apt/sources.list"
packages=$(for file in "$@"; do dpkg-deb --field "$file" Package; done | tr '\n' ' ')
for unit in 1 2 3 4 5 6; do
    cat >"$work/upper/src/unit$unit.c" <<END
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
double unit$unit(double x) { return sin(x) * $unit + strlen("unit$unit"); }
END
done
cat >"$work/upper/src/main.c" <<'END'
#include <stdio.h>
double unit1(double);
int main(void) { return printf("%f\n", unit1(2)) < 0; }
END
printf 'all: main\nmain: main.o unit1.o unit2.o unit3.o unit4.o unit5.o unit6.o\n\tgcc -o $@ $^ -lm\n%%.o: %%.c\n\tgcc -O2 -c $<\n' >"$work/upper/src/Makefile"
cat >"$work/upper/src/run.sh" <<END
cd /repo && python3 -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1 &
sleep 1
rm -f /var/lib/man-db/auto-update # as in images: manual pages are not indexed
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --reinstall --allow-downgrades $packages
cd /src && make && ./main
END
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/workdir" "$work/bundle/rootfs"
caps='"CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FOWNER","CAP_FSETID","CAP_SETGID","CAP_SETUID","CAP_SETFCAP","CAP_KILL","CAP_MKNOD","CAP_SYS_CHROOT","CAP_NET_BIND_SERVICE"'
cat >"$work/bundle/config.json" <<END
{
  "ociVersion": "1.0.2",
  "process": {
    "terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "/src/run.sh"], "cwd": "/src",
    "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
    "capabilities": {"bounding": [$caps], "effective": [$caps], "permitted": [$caps]}
  },
  "root": {"path": "rootfs"},
  "hostname": "builder-0",
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    {"destination": "/root", "type": "tmpfs", "source": "tmpfs"},
    {"destination": "/home", "type": "tmpfs", "source": "tmpfs"},
    {"destination": "/etc/apt/sources.list.d", "type": "tmpfs", "source": "tmpfs"},
    {"destination": "/etc/apt/apt.conf.d", "type": "tmpfs", "source": "tmpfs"}
  ],
  "linux": {
    "cgroupsPath": "/$id",
    "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]
  }
}
END
"$here/../../target/release/examples/record" "$here/recording.jsonl.gz" $rules -- runc run --bundle "$work/bundle" "$id"
