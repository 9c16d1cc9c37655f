/* Asks a web server on this machine as fast as it answers, and prints: nanoseconds bytes requests
 *
 *     load PORT CONNECTIONS LIST
 *
 * LIST holds paths, each ended by a NUL; each is asked for once, by GET, on connections that stay open.
 * One thread and epoll. An answer must be 200 and say its length.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 1 << 16, EVENTS = 256 };

struct connection {
    int fd, body;       /* body: the head has come */
    size_t got;         /* bytes of the head so far */
    uint64_t left;      /* bytes of the body to come */
    char head[HEAD + 1];
};

static char **paths;
static size_t path_count, asked, answered;
static uint64_t bytes;
static char waste[1 << 20];

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

static void ask(struct connection *c)
{
    char request[8192];
    if (asked == path_count)
        return;
    int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", paths[asked++]);
    if (length >= (int)sizeof request || send(c->fd, request, (size_t)length, MSG_NOSIGNAL) != length)
        err(1, "request");
    c->body = 0, c->got = 0;
}

static void take(struct connection *c)
{
    for (;;) {
        ssize_t got = c->body ? recv(c->fd, waste, sizeof waste, 0)
                              : recv(c->fd, c->head + c->got, HEAD - c->got, 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0)
            errx(1, "the server closed a connection");
        if (!c->body) {
            c->got += (size_t)got;
            c->head[c->got] = 0;
            char *blank = memmem(c->head, c->got, "\r\n\r\n", 4);
            if (!blank) {
                if (c->got == HEAD)
                    errx(1, "a head without end");
                continue;
            }
            char *length = strcasestr(c->head, "\r\nContent-Length:");
            if (strncmp(c->head + 8, " 200", 4) || !length || length > blank)
                errx(1, "an answer of %.20s", c->head);
            c->left = strtoull(length + 17, NULL, 10);
            bytes += c->left;
            c->body = 1;
            got = (ssize_t)(c->got - (size_t)(blank + 4 - c->head));
        }
        if ((uint64_t)got > c->left)
            errx(1, "more than was asked for");
        c->left -= (uint64_t)got;
        if (!c->left) {
            answered++;
            ask(c);
            return;
        }
    }
}

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        errx(2, "usage: load PORT CONNECTIONS LIST");
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    read_list(argv[3]);
    int epoll = epoll_create1(0), on = 1;
    long long start = now();
    for (int i = atoi(argv[2]); i > 0; i--) {
        struct connection *c = malloc(sizeof *c);
        struct epoll_event event = {EPOLLIN, {.ptr = c}};
        if (!c || (c->fd = socket(AF_INET, SOCK_STREAM, 0)) < 0
            || connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0)
            err(1, "connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
        ask(c);
    }
    struct epoll_event events[EVENTS];
    while (answered < path_count) {
        int count = epoll_wait(epoll, events, EVENTS, 30000);
        if (count <= 0)
            errx(1, "no answer for 30 s");
        for (int i = 0; i < count; i++)
            take(events[i].data.ptr);
    }
    printf("%lld %llu %zu\n", now() - start, (unsigned long long)bytes, answered);
    return 0;
}
