/* Sends requests at fixed instants over keep-alive connections and notes when their answers were complete.
 *
 *   pacer PORT CONNECTIONS REQUESTS INSTANTS RESULT GIVE_UP_MS
 *
 * REQUESTS  records of a 4-byte length (this machine's order) and so many bytes; taken in turn, from the first again
 * INSTANTS  8-byte integers: nanoseconds from the start at which a request is due, ascending
 * RESULT    written: for each instant two 8-byte integers, nanoseconds from it to the complete answer and to the sending
 *
 * A request waits for an idle connection, never for an answer: latency counts from the instant. One thread, which sleeps
 * while nothing is due or to be read, because it may share its core. Ends with 1 and a message when an answer is not 200.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_EVENTS = 64, MOST_BYTES = 1 << 22 };

struct connection {
  int fd;
  size_t request;
  char *got;
  size_t size, space;
};

struct bytes {
  char *at;
  size_t size;
};

static void fail(const char *what) {
  fprintf(stderr, "%s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
  exit(1);
}

static int64_t clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static struct bytes read_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) fail(path);
  struct bytes all = {0, (size_t)ftell(file)};
  rewind(file);
  all.at = malloc(all.size + 1);
  if (!all.at || fread(all.at, 1, all.size, file) != all.size) fail(path);
  fclose(file);
  return all;
}

static void open_connection(struct connection *one, int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int yes = 1;
  one->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (one->fd < 0 || connect(one->fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
  if (setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes)) fail("TCP_NODELAY");
  one->space = 1 << 16;
  one->got = malloc(one->space);
  if (!one->got) fail("memory");
}

/* The length of the whole answer that begins here, 0 while its head is not there. */
static size_t answer_size(const char *got, size_t size) {
  const char *end = memmem(got, size, "\r\n\r\n", 4);
  if (!end) return 0;
  for (const char *line = got; line < end; line = (const char *)memmem(line, end + 2 - line, "\r\n", 2) + 2)
    if (!strncasecmp(line, "content-length:", 15)) return end + 4 - got + strtoul(line + 15, 0, 10);
  errno = 0;
  fail("an answer without content-length");
  return 0;
}

/* Read what is there; whether the answer is complete. */
static int receive(struct connection *one) {
  if (one->size == one->space) {
    if (one->space >= MOST_BYTES) fail("an answer is too long");
    one->got = realloc(one->got, one->space *= 2);
    if (!one->got) fail("memory");
  }
  ssize_t more = recv(one->fd, one->got + one->size, one->space - one->size, 0);
  errno = more ? errno : 0;
  if (more <= 0) fail("the server closed a connection");
  one->size += more;
  size_t whole = answer_size(one->got, one->size);
  if (!whole || one->size < whole) return 0;
  if (one->size < 13 || memcmp(one->got, "HTTP/1.1 200 ", 13)) {
    fprintf(stderr, "refused: %.*s\n", (int)(one->size < 500 ? one->size : 500), one->got);
    exit(1);
  }
  one->size = 0;
  return 1;
}

int main(int count, char **arguments) {
  if (count != 7) fail("usage: pacer PORT CONNECTIONS REQUESTS INSTANTS RESULT GIVE_UP_MS");
  prctl(PR_SET_TIMERSLACK, 1);
  int connections = atoi(arguments[2]);
  struct bytes file = read_file(arguments[3]), instants = read_file(arguments[4]);
  const int64_t *due = (const int64_t *)instants.at;
  size_t total = instants.size / sizeof *due, requests = 0, at = 0, answered = 0;
  struct bytes *request = malloc((file.size / 4 + 1) * sizeof *request);
  for (size_t place = 0; place + 4 <= file.size; requests++) {
    uint32_t size;
    memcpy(&size, file.at + place, 4);
    request[requests] = (struct bytes){file.at + place + 4, size};
    place += 4 + size;
  }
  int64_t (*noted)[2] = calloc(total + 1, sizeof *noted);
  struct connection *all = calloc(connections, sizeof *all);
  struct connection **idle = malloc(connections * sizeof *idle);
  int epoll = epoll_create1(0), first = 0, free_ones = connections;
  if (!requests || !total || connections < 1 || !noted || !all || !idle || epoll < 0) fail("nothing to send");
  for (int i = 0; i < connections; i++) {
    open_connection(&all[i], atoi(arguments[1]));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event)) fail("epoll");
    idle[i] = &all[i];
  }
  int64_t start = clock_ns() + 10000000, now = start, give_up = due[total - 1] + atoll(arguments[6]) * 1000000;
  while (answered < total) {
    now = clock_ns() - start;
    while (at < total && due[at] <= now && free_ones) {
      struct connection *one = idle[first];
      struct bytes next = request[at % requests];
      first = (first + 1) % connections;
      free_ones--;
      one->request = at;
      noted[at][1] = now - due[at];
      if (send(one->fd, next.at, next.size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)next.size) fail("send");
      at++;
      now = clock_ns() - start;
    }
    errno = 0;
    if (now > give_up) fail("requests got no answer in time");
    int64_t wait = at < total && free_ones ? due[at] - now : 100000000;
    struct timespec sleep = {wait > 0 ? wait / 1000000000 : 0, wait > 0 ? wait % 1000000000 : 0};
    struct epoll_event events[MOST_EVENTS];
    int ready = epoll_pwait2(epoll, events, MOST_EVENTS, &sleep, 0);
    if (ready < 0 && errno != EINTR) fail("epoll_pwait2");
    for (int i = 0; i < ready; i++) {
      struct connection *one = events[i].data.ptr;
      if (!receive(one)) continue;
      noted[one->request][0] = clock_ns() - start - due[one->request];
      idle[(first + free_ones++) % connections] = one;
      answered++;
    }
  }
  FILE *result = fopen(arguments[5], "wb");
  if (!result || fwrite(noted, sizeof *noted, total, result) != total || fclose(result)) fail(arguments[5]);
  return 0;
}
