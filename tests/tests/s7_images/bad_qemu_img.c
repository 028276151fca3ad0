/* Stands in for qemu-img: a converter that was taken over by the image it reads, or one that is slow.
 * What it does is chosen when it is compiled: -DWHAT=… ; PATH_KEY is the control plane's master key. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SHADOW, KEY, PASSWD, SOCKET, FORK, EXEC, BEYOND, MEMORY, MOUNT, CREATE, SOURCE, SLOW };

int main(int count, char **arguments) {
  const char *source = arguments[count - 2], *destination = arguments[count - 1];
  long result = -1;
  switch (WHAT) {
  case SHADOW: result = open("/etc/shadow", O_RDONLY); break;
  case KEY: result = open(PATH_KEY, O_RDONLY); break;
  case PASSWD: result = open("/etc/passwd", O_RDONLY); break;
  case SOCKET: result = socket(AF_INET, SOCK_STREAM, 0); break;
  case FORK: result = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); break;
  case EXEC: {
    char *const words[] = {"ld", NULL};
    result = execve("/usr/lib/klibc/bin/sh", words, words + 1) & execve("/bin/sh", words, words + 1);
    break;
  }
  case BEYOND: result = pwrite(open(destination, O_RDWR), "x", 1, 1L << 40); break;
  case MEMORY: result = mmap(NULL, 1L << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0; break;
  case MOUNT: result = mount("none", "/", "tmpfs", 0, NULL); break;
  case CREATE: result = open("/proc/self/cwd/left", O_WRONLY | O_CREAT, 0600); break;
  case SOURCE: result = open(source, O_RDWR); break;
  case SLOW:
    printf("    (42.00/100%%)\r");
    fflush(stdout);
    for (;;) sleep(1);
  }
  fprintf(stderr, "%s\n", result < 0 ? strerror(errno) : "it worked");
  return 1;
}
