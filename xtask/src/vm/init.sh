#!/bin/busybox sh
# The first process of a test machine: lays an overlay of /lower and /upper over all, as a container has it, and runs
# /run-tests in it. Results go to the second serial line; the first one is the kernel's.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
exec >/dev/ttyS1 2>&1
[ -e /overlay.ko ] && insmod /overlay.ko
mount -t overlay overlay -o lowerdir=/lower,upperdir=/upper,workdir=/work /merged || poweroff -f
cd /merged || poweroff -f
# Moved, so that nothing but the root is mounted on the kernel's own: as after any distribution's first steps.
mount --move /proc proc
mount -t sysfs sys sys
mount --move /dev dev
mkdir dev/shm
mount -t tmpfs shm dev/shm
mount -t securityfs security sys/kernel/security
mount -t bpf bpf sys/fs/bpf
mount -t cgroup2 cgroup sys/fs/cgroup
mount -t tracefs tracing sys/kernel/tracing
mount --move . /
exec chroot . /bin/busybox sh /run-tests
