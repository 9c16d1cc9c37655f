/* A disk that takes its time: nothing is synced as long as there is a file FUSEFS_TEST_SYNC, for LD_PRELOAD. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static int waiting(const char *name, int file)
{
    const char *path = getenv("FUSEFS_TEST_SYNC");
    while (path && access(path, F_OK) == 0)
        usleep(10000);
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(file);
}

int fsync(int file)
{
    return waiting("fsync", file);
}

int syncfs(int file)
{
    return waiting("syncfs", file);
}
