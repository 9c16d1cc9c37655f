/* Reads files as fast as one or more processes can and prints: nanoseconds bytes files
 *
 *     reader whole  PROCESSES BLOCK LIST       each file: open, read to its end, close
 *     reader mmap   PROCESSES BLOCK LIST       each file: open, map, touch every page, close
 *     reader huge   PROCESSES BLOCK LIST       the same, mapped to a multiple of 2 MiB
 *     reader random PROCESSES BLOCK LIST N     N reads of BLOCK bytes at random places of the first file
 *     reader whole-direct, reader random-direct ...    the same, past the page cache (O_DIRECT)
 *     reader spin   1 BLOCK LIST               the first file: open, read, close, until standard input ends
 *
 * LIST holds paths, each ended by a NUL. Process i takes every PROCESSES-th path from the i-th on.
 * All processes start together; the clock runs from then until the last one has finished.
 * `spin` says `ready` once it has read the file, and prints the longest time from one end to the next,
 * the bytes and how often; a file that cannot be read ends it.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PROCESSES = 128, HUGE_PAGE = 2 << 20 };

struct tally { uint64_t bytes, files; };

static char **paths;
static size_t path_count, block;
static int direct; /* O_DIRECT or 0 */
static volatile unsigned char sink; /* keeps the compiler from dropping reads of mapped pages */

static void read_list(const char *name)
{
    struct stat st;
    int fd = open(name, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) < 0)
        err(1, "%s", name);
    char *text = malloc((size_t)st.st_size + 1);
    if (!text || read(fd, text, (size_t)st.st_size) != st.st_size)
        err(1, "%s", name);
    close(fd);
    for (off_t i = 0; i < st.st_size; i++)
        path_count += text[i] == 0;
    paths = calloc(path_count, sizeof *paths);
    if (!paths || !path_count)
        errx(1, "%s: no paths", name);
    for (size_t i = 0; i < path_count; i++, text += strlen(text) + 1)
        paths[i] = text;
}

static int open_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | direct);
    if (fd < 0)
        err(1, "%s", path);
    return fd;
}

static uint64_t read_whole(const char *path, char *buffer)
{
    uint64_t total = 0;
    ssize_t got;
    int fd = open_file(path);
    while ((got = read(fd, buffer, block)) > 0)
        total += (uint64_t)got;
    if (got < 0)
        err(1, "%s", path);
    close(fd);
    return total;
}

/* Where the kernel can map what lies in memory in large pieces, whatever place it would choose itself. */
static void *find_place(size_t size)
{
    char *room = mmap(NULL, size + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        err(1, "mmap");
    munmap(room, size + HUGE_PAGE);
    return room + -(uintptr_t)room % HUGE_PAGE;
}

static uint64_t read_mapped(const char *path, int aligned)
{
    struct stat st;
    int fd = open_file(path);
    if (fstat(fd, &st) < 0)
        err(1, "%s", path);
    if (st.st_size) {
        void *place = aligned ? find_place((size_t)st.st_size) : NULL;
        int flags = MAP_SHARED | (aligned ? MAP_FIXED_NOREPLACE : 0);
        unsigned char *map = mmap(place, (size_t)st.st_size, PROT_READ, flags, fd, 0);
        if (map == MAP_FAILED)
            err(1, "mmap %s", path);
        for (off_t i = 0; i < st.st_size; i += 4096)
            sink = map[i];
        munmap(map, (size_t)st.st_size);
    }
    close(fd);
    return (uint64_t)st.st_size;
}

static uint64_t read_randomly(const char *path, char *buffer, long count, unsigned seed)
{
    struct stat st;
    int fd = open_file(path);
    if (fstat(fd, &st) < 0)
        err(1, "%s", path);
    uint64_t blocks = (uint64_t)st.st_size / block, state = seed * 2654435761u + 88172645463325252u;
    if (!blocks)
        errx(1, "%s is smaller than a block", path);
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    for (long i = 0; i < count; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17; /* xorshift64 */
        if (pread(fd, buffer, block, (off_t)(state % blocks * block)) != (ssize_t)block)
            err(1, "%s", path);
    }
    close(fd);
    return (uint64_t)count * block;
}

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static void spin(char *buffer)
{
    struct tally tally = {read_whole(paths[0], buffer), 1};
    struct pollfd input = {.fd = 0, .events = POLLIN};
    long long longest = 0, last, end;
    printf("ready\n");
    fflush(stdout);
    last = now();
    for (int ended = 0; !ended; last = end, tally.files++) {
        ended = poll(&input, 1, 0); /* once more after that: it saw all that happened before */
        tally.bytes += read_whole(paths[0], buffer);
        end = now();
        if (end - last > longest)
            longest = end - last;
    }
    printf("%lld %llu %llu\n", longest, (unsigned long long)tally.bytes, (unsigned long long)tally.files);
}

static struct tally work(const char *mode, int first, int processes, long count)
{
    struct tally tally = {0, 0};
    char *buffer = NULL;
    if (posix_memalign((void **)&buffer, 4096, block))
        errx(1, "no memory for a block of %zu bytes", block);
    if (!strncmp(mode, "random", 6)) {
        tally.bytes = read_randomly(paths[0], buffer, count / processes, (unsigned)first + 1);
        tally.files = 1;
        return tally;
    }
    int aligned = !strcmp(mode, "huge"), mapped = aligned || !strcmp(mode, "mmap");
    for (size_t i = (size_t)first; i < path_count; i += (size_t)processes, tally.files++)
        tally.bytes += mapped ? read_mapped(paths[i], aligned) : read_whole(paths[i], buffer);
    return tally;
}

int main(int argc, char **argv)
{
    if (argc < 5)
        errx(2, "usage: reader whole[-direct]|mmap|huge|random[-direct]|spin PROCESSES BLOCK LIST [N]");
    int processes = atoi(argv[2]), gate[2], results[2];
    long count = argc > 5 ? atol(argv[5]) : 0;
    block = strtoul(argv[3], NULL, 10);
    direct = strstr(argv[1], "-direct") ? O_DIRECT : 0;
    if (processes < 1 || processes > MAX_PROCESSES || !block)
        errx(2, "PROCESSES is 1 to %d, BLOCK at least 1", MAX_PROCESSES);
    read_list(argv[4]);
    if (!strcmp(argv[1], "spin")) {
        char *buffer = malloc(block);
        if (!buffer)
            errx(1, "no memory for a block of %zu bytes", block);
        spin(buffer);
        return 0;
    }
    if (pipe(gate) < 0 || pipe(results) < 0)
        err(1, "pipe");
    for (int i = 0; i < processes; i++) {
        pid_t pid = fork();
        if (pid < 0)
            err(1, "fork");
        if (!pid) {
            char byte;
            close(gate[1]);
            if (read(gate[0], &byte, 1) != 0) /* returns when the parent closes the gate */
                err(1, "gate");
            struct tally tally = work(argv[1], i, processes, count);
            if (write(results[1], &tally, sizeof tally) != sizeof tally)
                err(1, "result");
            _exit(0);
        }
    }
    long long start = now();
    close(gate[1]);
    int status, failed = 0;
    for (int i = 0; i < processes; i++)
        if (wait(&status) < 0 || status)
            failed = 1;
    long long ns = now() - start;
    if (failed)
        return 1;
    struct tally sum = {0, 0}, one;
    for (int i = 0; i < processes; i++) {
        if (read(results[0], &one, sizeof one) != sizeof one)
            err(1, "results");
        sum.bytes += one.bytes, sum.files += one.files;
    }
    printf("%lld %llu %llu\n", ns, (unsigned long long)sum.bytes, (unsigned long long)sum.files);
    return 0;
}
