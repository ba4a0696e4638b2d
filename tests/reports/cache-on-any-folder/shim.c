// fsync of a folder fails as the environment says.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

int fsync(int descriptor) {
    static int (*real)(int);
    struct stat found;
    if (!fstat(descriptor, &found) && S_ISDIR(found.st_mode)) {
        errno = atoi(getenv("SHIM_ERROR"));
        return -1;
    }
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return real(descriptor);
}
