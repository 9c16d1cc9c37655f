/* Forwards TCP connections to a port of this machine and lets every request wait:
 *
 *     delay_proxy UPSTREAM_PORT MILLISECONDS
 *
 * Prints the port that it listens on (127.0.0.1) and serves until it is killed. A request goes on after so many
 * milliseconds; the rest of it, and what comes back, goes on at once: a longer way, not a narrower one.
 * For each line on standard input it prints how many requests had no answer yet at once, at most, since the line
 * before.
 * One thread and epoll; a direction that cannot be written is not read, so nothing piles up.
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
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 18, EVENTS = 256, REQUEST = 1 << 14 };

/* One direction of a connection: bytes read from `from` and not yet written to its peer. */
struct side {
    int fd, reading, writing, ended, shut;
    struct connection *of;
    struct side *peer;
    char *bytes;
    size_t start, end, room;
    long long due;     /* nanoseconds; 0: at once */
    int delayed;
};
struct connection {
    struct side client, server;
    struct connection *next_waiting, *next_dead;
    int waiting, dead;
    int asking;        /* a request has begun, and nothing was answered since */
};

static int epoll;
static long long delay;
static struct connection *first_waiting, *last_waiting, *dead;
static int asking, most; /* requests without an answer: now, and at most */

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static void ask(struct connection *c, int is_asking)
{
    asking += is_asking - c->asking;
    c->asking = is_asking;
    if (asking > most)
        most = asking;
}

static void end(struct connection *c)
{
    if (c->dead)
        return;
    c->dead = 1;
    ask(c, 0);
    close(c->client.fd);
    close(c->server.fd);
    c->next_dead = dead;
    dead = c;
}

static void watch(struct side *s)
{
    /* Read where there is room and nothing that waits; write where the peer has something for us. */
    struct side *peer = s->peer;
    int reading = !s->ended && s->start == s->end && !s->of->dead;
    int writing = peer->end > peer->start && !peer->due;
    if (reading == s->reading && writing == s->writing)
        return;
    s->reading = reading, s->writing = writing;
    struct epoll_event event = {(reading ? EPOLLIN : 0) | (writing ? EPOLLOUT : 0), {.ptr = s}};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &event) < 0)
        err(1, "epoll_ctl");
}

/* Write what was read from `s` to its peer. */
static void flush(struct side *s)
{
    while (s->start < s->end && !s->due) {
        ssize_t sent = send(s->peer->fd, s->bytes + s->start, s->end - s->start, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0) {
            end(s->of);
            return;
        }
        s->start += (size_t)sent;
    }
    if (s->start == s->end)
        s->start = s->end = 0;
    if (s->ended && s->start == s->end && !s->shut) {
        s->shut = 1;
        shutdown(s->peer->fd, SHUT_WR);
        if (s->peer->shut) {
            end(s->of);
            return;
        }
    }
    watch(s);
    watch(s->peer);
}

static void wait_for(struct connection *c)
{
    c->client.due = now() + delay;
    c->waiting = 1, c->next_waiting = NULL;
    if (last_waiting)
        last_waiting->next_waiting = c;
    else
        first_waiting = c;
    last_waiting = c;
}

static void fill(struct side *s)
{
    ssize_t got = recv(s->fd, s->bytes, s->room, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got < 0) {
        end(s->of);
        return;
    }
    s->ended = got == 0;
    s->start = 0, s->end = (size_t)got;
    if (s->delayed && got > 0 && delay && !s->of->asking)
        wait_for(s->of);
    if (got > 0)
        ask(s->of, s->delayed);
    flush(s);
}

/* Send on the requests that have waited; the milliseconds until the next one, -1 for none. */
static int release(void)
{
    while (first_waiting) {
        struct connection *c = first_waiting;
        long long left = c->client.due - now();
        if (!c->dead && left > 0)
            return (int)(left / 1000000) + 1;
        first_waiting = c->next_waiting;
        if (!first_waiting)
            last_waiting = NULL;
        c->waiting = 0, c->client.due = 0;
        if (!c->dead)
            flush(&c->client);
    }
    return -1;
}

static void bury(void)
{
    struct connection **place = &dead;
    while (*place) {
        struct connection *c = *place;
        if (c->waiting) {
            place = &c->next_dead;
            continue;
        }
        *place = c->next_dead;
        free(c->client.bytes);
        free(c->server.bytes);
        free(c);
    }
}

static void add(struct side *s, int fd, struct connection *of, struct side *peer, size_t room, int delayed)
{
    int on = 1;
    *s = (struct side){.fd = fd, .reading = 1, .of = of, .peer = peer, .room = room, .delayed = delayed};
    s->bytes = malloc(room);
    struct epoll_event event = {EPOLLIN, {.ptr = s}};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (!s->bytes || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        err(1, "a new connection");
}

static void greet(int listener, struct sockaddr_in upstream)
{
    int client, server;
    while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (server < 0 || connect(server, (struct sockaddr *)&upstream, sizeof upstream) < 0)
            err(1, "upstream"); /* on this machine: at once or never */
        fcntl(server, F_SETFL, O_NONBLOCK);
        struct connection *c = calloc(1, sizeof *c);
        if (!c)
            err(1, "memory");
        add(&c->client, client, c, &c->server, REQUEST, 1);
        add(&c->server, server, c, &c->client, BUFFER, 0);
    }
}

static void tell_most(void)
{
    char said[64];
    ssize_t got = read(STDIN_FILENO, said, sizeof said);
    if (got <= 0)
        epoll_ctl(epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    for (ssize_t i = 0; i < got; i++)
        if (said[i] == '\n') {
            printf("%d\n", most);
            most = asking;
        }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        errx(2, "usage: delay_proxy UPSTREAM_PORT MILLISECONDS");
    struct sockaddr_in upstream = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    struct sockaddr_in here = {.sin_family = AF_INET};
    upstream.sin_addr.s_addr = here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    delay = (long long)(atof(argv[2]) * 1e6);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t length = sizeof here;
    if (bind(listener, (struct sockaddr *)&here, length) < 0 || listen(listener, 1024) < 0
        || getsockname(listener, (struct sockaddr *)&here, &length) < 0)
        err(1, "listen");
    struct epoll_event event = {EPOLLIN, {.ptr = NULL}}, events[EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = &most;
    epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event); /* refused for what is no pipe, and not needed there */
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, release());
        for (int i = 0; i < count; i++) {
            struct side *s = events[i].data.ptr;
            if ((void *)s == &most) {
                tell_most();
                continue;
            }
            if (!s) {
                greet(listener, upstream);
                continue;
            }
            if (s->of->dead)
                continue;
            if (events[i].events & EPOLLERR) {
                end(s->of);
                continue;
            }
            if (events[i].events & EPOLLOUT)
                flush(s->peer);
            if (!s->of->dead && (events[i].events & (EPOLLIN | EPOLLHUP)) && s->reading)
                fill(s);
            else if (!s->of->dead && (events[i].events & EPOLLHUP))
                end(s->of); /* both directions are over, or reset */
        }
        bury();
    }
}
