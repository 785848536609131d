/* Loaded before the C library: counts calls that change files in one folder, and fails or ends the process at one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4096];
static long calls, fault_at;
static int kills;
static char order[4096]; /* of the calls: w write, s sync, r rename */

/* From now on the `at`-th call fails with ENOSPC, or ends the process; none does if `at` is 0. */
void faults_begin(const char *path, long at, int kill) {
    snprintf(folder, sizeof folder, "%s", path);
    calls = 0;
    order[0] = 0;
    fault_at = at;
    kills = kill;
}

long faults_counted(void) { return calls; }
const char *faults_order(void) { return order; }

static int due(const char *path, char kind) {
    if (!folder[0] || strncmp(path, folder, strlen(folder)) != 0) return 0;
    if (calls < (long)sizeof order - 1) order[calls] = kind, order[calls + 1] = 0;
    if (++calls != fault_at) return 0;
    if (kills) _exit(77);
    errno = ENOSPC;
    return 1;
}

static int due_fd(int fd, char kind) {
    char link[64], path[4096];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return due(path, kind);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size) {
    if (due_fd(fd, 'w')) return -1;
    return REAL(write)(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    if (due_fd(fd, 'w')) return -1;
    return REAL(pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
    if (due_fd(fd, 'w')) return -1;
    return REAL(pwrite64)(fd, data, size, at);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (due_fd(fd, 'w')) return -1;
    return REAL(writev)(fd, parts, count);
}
int ftruncate(int fd, off_t size) {
    if (due_fd(fd, 'w')) return -1;
    return REAL(ftruncate)(fd, size);
}
int ftruncate64(int fd, off_t size) {
    if (due_fd(fd, 'w')) return -1;
    return REAL(ftruncate64)(fd, size);
}
int fsync(int fd) {
    if (due_fd(fd, 's')) return -1;
    return REAL(fsync)(fd);
}
int fdatasync(int fd) {
    if (due_fd(fd, 's')) return -1;
    return REAL(fdatasync)(fd);
}
int rename(const char *from, const char *to) {
    if (due(to, 'r')) return -1;
    return REAL(rename)(from, to);
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    if (due(to, 'r')) return -1;
    return REAL(renameat)(from_folder, from, to_folder, to);
}
