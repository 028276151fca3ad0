//! What a program that was taken over tries, by the names that `evil.c` has for it.

/// What no honest program does: it ends the process, as target, as boot services and, but for `BROKER_MAY`, as broker.
pub const CALLS: &[&str] = &[
    // Files.
    "unlink",
    "device",
    "memfd",
    "handle",
    "inotify",
    "splice",
    "copy",
    "clone-range",
    "pipe-size",
    // Sockets.
    "unix",
    "unix-path",
    "unix-abstract",
    "raw",
    "packet",
    "netlink",
    "ipv6",
    "vsock",
    "alg",
    "mptcp",
    "sctp",
    "ping",
    "connect",
    // Processes and memory.
    "fork",
    "kill",
    "ptrace",
    "process-memory",
    "pidfd",
    "raise-core",
    "priority",
    "write-execute",
    "anonymous-execute",
    "make-executable",
    // Rights and the kernel.
    "mount",
    "umount",
    "new-mount",
    "pivot",
    "chroot",
    "unshare-user",
    "clone-user",
    "setns",
    "root",
    "capabilities",
    "dumpable",
    "seccomp",
    "bpf",
    "io_uring",
    "userfaultfd",
    "perf",
    "keyctl",
    "add-key",
    "module",
    "kexec",
    "time",
    "host-name",
    "personality",
    "quota",
];

/// What a broker does, or could: it connects to Ceph over both families.
#[allow(dead_code, reason = "containers are none")]
pub const BROKER_MAY: &[&str] = &["ipv6", "connect"];

/// What the target of a disk in Ceph does, or could: it connects to its broker's socket.
#[allow(dead_code, reason = "only containers have such a one here")]
pub const WITH_A_BROKER_MAY: &[&str] = &["unix", "unix-path", "unix-abstract", "connect"];

/// What only a target could try: it has a disk, and no use for datagrams.
pub const TARGET_CALLS: &[&str] =
    &["grow", "reserve", "zero-reserve", "insert", "read-once", "mode", "truncate", "udp"];
