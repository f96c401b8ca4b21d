/* A driver of Vulkan for tests: Mesa's software one, and what a kernel would have it do that has
 * taken it over.
 *
 * As it is loaded it tries what the process should not be able to, and says in a line of standard
 * error what came of it: `tried NAME=0` or the number of the error, one after the other. Everything
 * else is passed on to MESA, which is given as the file is compiled. With GREEDY it takes memory
 * for as long as it is let instead, in a process that tries a kernel.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef GREEDY
#define GREEDY 0
#endif

static char said[4096];

static void tell(const char *name, int failed) {
    size_t at = strlen(said);
    snprintf(said + at, sizeof said - at, " %s=%d", name, failed ? errno : 0);
}

static int opened(const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0) return 1;
    close(fd);
    return 0;
}

/* `cache` is a folder of the one that the process has, which is one of the node's data. */
static void files(const char *cache) {
    char path[4096], own[2048], parent[64];
    tell("read-passwd", opened("/etc/passwd", O_RDONLY));
    if (cache && strrchr(cache, '/')) {
        snprintf(own, sizeof own, "%s", cache);
        *strrchr(own, '/') = 0;
        snprintf(path, sizeof path, "%s/..", own);
        tell("list-data", opened(path, O_RDONLY | O_DIRECTORY));
        snprintf(path, sizeof path, "%s/../made-by-a-driver", own);
        tell("write-data", opened(path, O_WRONLY | O_CREAT));
        snprintf(path, sizeof path, "%s/made-by-a-driver", own);
        tell("write-own", opened(path, O_WRONLY | O_CREAT));
    }
    tell("write-tmp", opened("/tmp", O_WRONLY | O_TMPFILE));
    snprintf(parent, sizeof parent, "/proc/%d/mem", getppid());
    tell("open-memory", opened(parent, O_RDONLY));
}

static void network(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "/nowhere"};
    int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    tell("socket", tcp < 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    /* What else could be there to be connected: standard input is a socket. */
    int failed = connect(tcp < 0 ? 0 : tcp, (struct sockaddr *)&to, sizeof to);
    tell("connect", failed && errno != ECONNREFUSED);
    int unix_one = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    tell("unix-socket", unix_one < 0);
    failed = connect(unix_one < 0 ? 0 : unix_one, (struct sockaddr *)&at, sizeof at);
    tell("unix-connect", failed && errno != ENOENT);
}

static void others(void) {
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/true", "true", (char *)0);
        _exit(1);
    }
    tell("fork", child < 0);
    if (child > 0) waitpid(child, 0, 0);
    /* What works does not return; this one is not there. */
    int failed = execl("/bin/there-is-no-such-program", "x", (char *)0);
    tell("exec", failed && errno != ENOENT);
    tell("kill-parent", kill(getppid(), 0));
    tell("kill-itself", kill(getpid(), 0));
    errno = 0;
    failed = ptrace(PTRACE_PEEKUSER, getppid(), 0, 0) == -1 && errno;
    tell("ptrace", failed && errno != ESRCH);
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x1000, 1};
    failed = process_vm_readv(getppid(), &here, 1, &there, 1, 0) < 0;
    tell("read-memory", failed && errno != EFAULT);
}

/* Each is called so that a kernel that lets it be called says that the arguments are wrong. */
static void calls(void) {
    static const struct { const char *name; long number; } all[] = {
        {"bpf", SYS_bpf},           {"perf", SYS_perf_event_open}, {"keyctl", SYS_keyctl},
        {"mount", SYS_mount},       {"io-uring", SYS_io_uring_setup}, {"setns", SYS_setns},
        {"userfaultfd", SYS_userfaultfd}, {"kexec", SYS_kexec_load},
    };
    for (size_t at = 0; at < sizeof all / sizeof all[0]; at++) {
        long failed = syscall(all[at].number, -1, -1, -1, -1, -1, -1) < 0;
        tell(all[at].name, failed && errno != EINVAL && errno != EFAULT && errno != EBADF &&
                                 errno != E2BIG && errno != ENOSYS && errno != EOPNOTSUPP);
    }
}

/* So that what is taken is taken. */
char *volatile kept;

static int is_trial(void) {
    char line[4096] = "";
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t length = read(fd, line, sizeof line - 1);
    close(fd);
    size_t first = strlen(line) + 1;
    return length > (ssize_t)first && !strcmp(line + first, "gpu-trial");
}

static void take_memory(void) {
    for (int pieces = 0; pieces < 64; pieces++) {
        char *piece = malloc(64 << 20);
        if (!piece) break;
        for (size_t at = 0; at < 64 << 20; at += 4096) piece[at] = 1;
        kept = piece;
    }
    /* Whatever it is let take, it is not done. */
    for (;;) sleep(1000);
}

__attribute__((constructor)) static void loaded(void) {
    int trial = is_trial();
    if (GREEDY) {
        if (trial) take_memory();
        return;
    }
    files(getenv("MESA_SHADER_CACHE_DIR"));
    network();
    others();
    calls();
    dprintf(trial ? 1 : 2, "tried%s\n", said);
    /* So that what it says is heard of. */
    if (trial) _exit(1);
}

static void *real(const char *name) {
    static void *mesa;
    if (!mesa) mesa = dlopen(MESA, RTLD_NOW | RTLD_LOCAL);
    return mesa ? dlsym(mesa, name) : 0;
}

typedef void (*function)(void);

function vk_icdGetInstanceProcAddr(void *instance, const char *name) {
    function (*get)(void *, const char *) = real("vk_icdGetInstanceProcAddr");
    return get ? get(instance, name) : 0;
}

function vk_icdGetPhysicalDeviceProcAddr(void *instance, const char *name) {
    function (*get)(void *, const char *) = real("vk_icdGetPhysicalDeviceProcAddr");
    return get ? get(instance, name) : 0;
}

int vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version) {
    int (*negotiate)(uint32_t *) = real("vk_icdNegotiateLoaderICDInterfaceVersion");
    return negotiate ? negotiate(version) : -3;
}
