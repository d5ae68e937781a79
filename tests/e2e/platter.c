/* A disk that keeps only what was synced, for a process started with LD_PRELOAD: after each fsync or fdatasync of a file
 * in the folder that PLATTER_OF names, what the file holds now is kept under its name in the folder that PLATTER names. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static void copy(const char *from, const char *to) {
    static __thread char octets[1 << 16];
    char fresh[4200];
    ssize_t count = 0;
    snprintf(fresh, sizeof fresh, "%s.fresh", to);
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    while (in >= 0 && out >= 0 && (count = read(in, octets, sizeof octets)) > 0)
        if (write(out, octets, count) != count)
            abort();
    if (in < 0 || out < 0 || count < 0 || close(in) || close(out) || rename(fresh, to))
        abort();
}

static void keep(int file) {
    const char *of = getenv("PLATTER_OF"), *platter = getenv("PLATTER");
    char name[64], path[4096], to[4160];
    int before = errno;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (!of || !platter || length < 0)
        return;
    path[length] = 0;
    size_t folder = strlen(of);
    if (!strncmp(path, of, folder) && path[folder] == '/' && !strchr(path + folder + 1, '/')) {
        snprintf(to, sizeof to, "%s%s", platter, path + folder);
        copy(path, to);
    }
    errno = before;
}

int fsync(int file) {
    int result = ((__typeof__(&fsync))dlsym(RTLD_NEXT, "fsync"))(file);
    if (!result)
        keep(file);
    return result;
}

int fdatasync(int file) {
    int result = ((__typeof__(&fdatasync))dlsym(RTLD_NEXT, "fdatasync"))(file);
    if (!result)
        keep(file);
    return result;
}
