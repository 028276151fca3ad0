/* A program that was taken over: one attempt per start, named by its first argument.
 *
 * Exit status: 0 it worked, else the error's number; or the signal that ended it. In C, because most of what is
 * attempted has no safe wrapper. Started through the real launcher by tests/barriers.rs, and inside a container by
 * tests/s3_container.rs. In the place of bmi-target or bmi-netboot it says what they say first, prints without end for a
 * while, and stays. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#define MUCH (64L << 20)

static const char *argument;   /* of the attempt */
static const char *volume = ""; /* the disk it was given: --lun 0=file:PATH */

static long opened(int flags) {
  int fd = open(argument, flags, 0600);
  return fd < 0 ? -1 : 0;
}

static long on_volume(long (*work)(int)) {
  int fd = open(volume, O_RDWR);
  return fd < 0 ? -1 : work(fd);
}

static long allocated(int fd, int mode) { return fallocate(fd, mode, 0, MUCH); }
static long grow(int fd) { return allocated(fd, 0); }
static long reserve(int fd) { return allocated(fd, FALLOC_FL_KEEP_SIZE); }
static long zero_reserve(int fd) { return allocated(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE); }
static long zero_grow(int fd) { return allocated(fd, FALLOC_FL_ZERO_RANGE); }
static long insert(int fd) { return fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 1 << 20); }
static long zero(int fd) { return fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 4096); }
static long read_ahead(int fd) { return posix_fadvise(fd, 0, 4096, POSIX_FADV_WILLNEED); }
static long let_go(int fd) { return posix_fadvise(fd, 0, 4096, POSIX_FADV_DONTNEED); }
static long read_once(int fd) { return posix_fadvise(fd, 0, 4096, POSIX_FADV_NOREUSE); }
static long punch(int fd) { return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096); }
static long beyond(int fd) { return pwrite(fd, "x", 1, MUCH) == 1 ? 0 : -1; }
static long within(int fd) { return pwrite(fd, "x", 1, 0) == 1 && fdatasync(fd) == 0 ? 0 : -1; }
static long shorten(int fd) { return ftruncate(fd, 4096); }
static long run_volume(int fd) { return fchmod(fd, 0777); }

static long stream_connected(const struct sockaddr *to, socklen_t length) {
  int fd = socket(to->sa_family, SOCK_STREAM, 0);
  return fd < 0 ? -1 : connect(fd, to, length);
}

static long unix_connected(int abstract) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  strncpy(to.sun_path + abstract, argument, sizeof to.sun_path - 2);
  return stream_connected((struct sockaddr *)&to, offsetof(struct sockaddr_un, sun_path) + abstract + strlen(argument) + !abstract);
}

static struct sockaddr_in address(int port) {
  return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static long tcp_connected(void) {
  struct sockaddr_in to = address(3260);
  return stream_connected((struct sockaddr *)&to, sizeof to);
}

static long tcp_bound(int port) {
  struct sockaddr_in at = address(port);
  int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  if (fd < 0 || setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &yes, sizeof yes) < 0) return -1;
  return bind(fd, (struct sockaddr *)&at, sizeof at);
}

/* The argument is a letter and two numbers, as in b8:0 for the first disk; the name is one where most may make files. */
static long device_made(void) {
  unsigned major = 1, minor = 3;
  if (*argument) sscanf(argument + 1, "%u:%u", &major, &minor);
  return mknod("/dev/shm/device", (*argument == 'b' ? S_IFBLK : S_IFCHR) | 0600, makedev(major, minor));
}

static long socket_made(int domain, int type, int protocol) { return socket(domain, type, protocol) < 0 ? -1 : 0; }

static long listed(void) {
  DIR *directory = opendir(argument);
  return directory && readdir(directory) ? 0 : -1;
}

static long executed(void) {
  char *const none[] = {"sh", "-c", "true", NULL};
  return execve(argument, none, none + 3);
}

static void *wait_for_ever(void *unused) {
  poll(NULL, 0, -1);
  return unused;
}

static long threads_made(void) {
  for (int count = 0; count < 200; count++) {
    pthread_t thread;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    int error = pthread_create(&thread, &small, wait_for_ever, NULL);
    if (error) {
      errno = error;
      return -1;
    }
  }
  return 0;
}

static long memory_taken(void) {
  for (int count = 0; count < 64; count++) {
    char *some = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (some == MAP_FAILED) return -1;
    some[0] = 1;
  }
  return 0;
}

static long files_opened(void) {
  for (int count = 0; count < 6000; count++)
    if (socket(AF_INET, SOCK_STREAM, 0) < 0) return -1;
  return 0;
}

static long mapped(int protection, int flags) {
  void *some = mmap(NULL, 4096, protection, flags | MAP_PRIVATE, -1, 0);
  return some == MAP_FAILED ? -1 : 0;
}

static long made_executable(void) {
  void *some = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
  return mprotect(some, 4096, PROT_READ | PROT_EXEC);
}

static long limit_raised(int resource) {
  struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
  return setrlimit(resource, &all);
}

static long memory_written(void) {
  for (int count = 0; count < 64; count++) {
    char *some = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (some == MAP_FAILED) return -1;
    memset(some, 1, 16 << 20);
  }
  return 0;
}

static long processor_used(void) {
  for (volatile unsigned long count = 0; count < 1000000000UL; count++);
  return 0;
}

static long filled(void) {
  static char some[1 << 20];
  int fd = open(argument, O_WRONLY | O_CREAT, 0600);
  if (fd < 0) return -1;
  for (int count = 0; count < 1024; count++)
    if (write(fd, some, sizeof some) < 0) return -1;
  return 0;
}

/* As what it is started in the place of would. */
static void stay(const char *listen) {
  static char line[1024];
  printf("{\"event\":\"listening\",\"address\":\"%s\"}\n", listen);
  fflush(stdout);
  /* What was lost of a log that is too long is the oldest: that it listens must have been read. */
  poll(NULL, 0, 3000);
  memset(line, 'x', sizeof line - 1);
  line[sizeof line - 1] = '\n';
  for (int count = 0; count < 16 << 10; count++)
    if (write(1 + count % 2, line, sizeof line) < 0) break;
  for (;;) poll(NULL, 0, -1);
}

static char scratch[4096];

#define TRY(name, expression) \
  if (!strcmp(attempt, name)) return (expression);

static long attempt_made(const char *attempt) {
  /* What an honest target does. */
  TRY("nothing", 0)
  TRY("write", on_volume(within))
  TRY("zero", on_volume(zero))
  TRY("punch", on_volume(punch))
  TRY("read-ahead", on_volume(read_ahead))
  TRY("let-go", on_volume(let_go))
  TRY("listen", tcp_bound(3260))
  TRY("thread", ({ pthread_t t; pthread_create(&t, NULL, wait_for_ever, NULL); }))
  TRY("read", opened(O_RDONLY))
  /* Files. */
  TRY("open-write", opened(O_WRONLY))
  TRY("create", opened(O_WRONLY | O_CREAT))
  TRY("list", listed())
  TRY("execute", executed())
  TRY("truncate", on_volume(shorten))
  TRY("mode", on_volume(run_volume))
  TRY("grow", on_volume(grow))
  TRY("reserve", on_volume(reserve))
  TRY("zero-reserve", on_volume(zero_reserve))
  TRY("zero-grow", on_volume(zero_grow))
  TRY("insert", on_volume(insert))
  TRY("read-once", on_volume(read_once))
  TRY("beyond", on_volume(beyond))
  TRY("unlink", unlink(argument))
  TRY("device", device_made())
  TRY("memfd", syscall(SYS_memfd_create, "x", 0) < 0 ? -1 : 0)
  TRY("handle", syscall(SYS_open_by_handle_at, 0, scratch, 0) < 0 ? -1 : 0)
  TRY("inotify", syscall(SYS_inotify_init1, 0) < 0 ? -1 : 0)
  TRY("splice", syscall(SYS_splice, 0, NULL, 1, NULL, 1, 0))
  TRY("copy", syscall(SYS_copy_file_range, 0, NULL, 1, NULL, 1, 0))
  TRY("clone-range", ({ ioctl(1, 0x40049409 /* FICLONE */, 0); }))
  TRY("pipe-size", fcntl(1, F_SETPIPE_SZ, 1 << 20) < 0 ? -1 : 0)
  /* The network. */
  TRY("connect", tcp_connected())
  TRY("listen-elsewhere", tcp_bound(8080))
  TRY("unix", socket_made(AF_UNIX, SOCK_STREAM, 0))
  TRY("unix-path", unix_connected(0))
  TRY("unix-abstract", unix_connected(1))
  TRY("udp", socket_made(AF_INET, SOCK_DGRAM, 0))
  TRY("raw", socket_made(AF_INET, SOCK_RAW, IPPROTO_ICMP))
  TRY("packet", socket_made(AF_PACKET, SOCK_RAW, 0))
  TRY("netlink", socket_made(AF_NETLINK, SOCK_RAW, 0))
  TRY("ipv6", socket_made(AF_INET6, SOCK_STREAM, 0))
  TRY("vsock", socket_made(AF_VSOCK, SOCK_STREAM, 0))
  TRY("alg", socket_made(AF_ALG, SOCK_SEQPACKET, 0))
  TRY("mptcp", socket_made(AF_INET, SOCK_STREAM, 262)) /* IPPROTO_MPTCP: rules for TCP ports need not hold it. */
  TRY("sctp", socket_made(AF_INET, SOCK_STREAM, IPPROTO_SCTP))
  TRY("ping", socket_made(AF_INET, SOCK_DGRAM, IPPROTO_ICMP))
  /* Processes. */
  TRY("fork", ({ long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); if (!child) _exit(0); child < 0 ? -1 : 0; }))
  TRY("fork-clone3", ({ struct { unsigned long v[11]; } a = {{[4] = SIGCHLD}}; long child = syscall(SYS_clone3, &a, sizeof a); if (!child) _exit(0); child < 0 ? -1 : 0; }))
  TRY("kill", kill(atoi(argument), 0))
  TRY("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0))
  TRY("process-memory", syscall(SYS_process_vm_readv, 1, NULL, 0, NULL, 0, 0))
  TRY("pidfd", syscall(SYS_pidfd_open, 1, 0) < 0 ? -1 : 0)
  TRY("threads", threads_made())
  TRY("memory", memory_taken())
  TRY("memory-written", memory_written())
  TRY("processor", processor_used())
  TRY("files", files_opened())
  TRY("fill", filled())
  TRY("raise-core", limit_raised(RLIMIT_CORE))
  TRY("priority", setpriority(PRIO_PROCESS, 0, 5))
  TRY("write-execute", mapped(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_ANONYMOUS))
  TRY("anonymous-execute", mapped(PROT_READ | PROT_EXEC, MAP_ANONYMOUS))
  TRY("make-executable", made_executable())
  /* Rights and the kernel. */
  TRY("mount", mount("none", "/", "tmpfs", 0, NULL))
  TRY("umount", umount2("/", MNT_DETACH))
  TRY("new-mount", syscall(SYS_fsopen, "tmpfs", 0) < 0 ? -1 : 0)
  TRY("pivot", syscall(SYS_pivot_root, ".", "."))
  TRY("chroot", chroot("."))
  TRY("unshare-user", unshare(CLONE_NEWUSER))
  TRY("clone-user", ({ long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0); if (!child) _exit(0); child < 0 ? -1 : 0; }))
  TRY("setns", setns(0, 0))
  TRY("root", setresuid(0, 0, 0))
  TRY("capabilities", ({ unsigned h[2] = {0x20080522, 0}, d[6] = {~0u, ~0u, 0, ~0u, ~0u, 0}; syscall(SYS_capset, h, d); }))
  TRY("dumpable", prctl(PR_SET_DUMPABLE, 1))
  TRY("seccomp", syscall(SYS_seccomp, 2, 0, NULL))
  TRY("bpf", syscall(SYS_bpf, 0, scratch, 72) < 0 ? -1 : 0)
  TRY("io_uring", syscall(SYS_io_uring_setup, 4, scratch) < 0 ? -1 : 0)
  TRY("userfaultfd", syscall(SYS_userfaultfd, 1) < 0 ? -1 : 0)
  TRY("perf", syscall(SYS_perf_event_open, scratch, 0, -1, -1, 0) < 0 ? -1 : 0)
  TRY("keyctl", syscall(SYS_keyctl, 0, -3, 0) < 0 ? -1 : 0)
  TRY("add-key", syscall(SYS_add_key, "user", "x", "y", 1, -3) < 0 ? -1 : 0)
  TRY("module", syscall(SYS_init_module, NULL, 0, ""))
  TRY("kexec", syscall(SYS_kexec_load, 0, 0, NULL, 0))
  TRY("time", syscall(SYS_clock_settime, 0, NULL))
  TRY("host-name", sethostname("x", 1))
  TRY("personality", syscall(SYS_personality, 0) < 0 ? -1 : 0)
  TRY("quota", syscall(SYS_quotactl, 0, NULL, 0, NULL))
  errno = 99;
  return -1;
}

int main(int count, char **arguments) {
  const char *attempt = count > 1 ? arguments[1] : "";
  argument = count > 2 ? arguments[2] : "";
  for (int at = 1; at + 1 < count; at++)
    if (!strcmp(attempt, "--listen") || !strcmp(attempt, "--config")) {
      stay(strcmp(attempt, "--listen") ? "0.0.0.0" : argument);
    } else if (!strcmp(arguments[at], "--lun") && strchr(arguments[at + 1], ':')) volume = strchr(arguments[at + 1], ':') + 1;
  signal(SIGXFSZ, SIG_IGN);
  errno = 0;
  return attempt_made(attempt) == 0 ? 0 : errno ? errno : 1;
}
