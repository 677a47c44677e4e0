/* What the pacers share: the schedule, the clock, and connections to this machine. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_EVENTS = 64 };

struct bytes {
  char *at;
  size_t size;
};

/* Each time is in nanoseconds from the start. */
struct schedule {
  struct bytes *request;
  size_t requests, total;
  const int64_t *due;
  int64_t (*noted)[2];
  int64_t start, give_up;
};

static void fail(const char *what) {
  fprintf(stderr, "%s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
  exit(1);
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

static struct schedule read_schedule(const char *requests, const char *instants, const char *give_up_ms) {
  struct bytes file = read_file(requests), times = read_file(instants);
  struct schedule all = {.due = (const int64_t *)times.at, .total = times.size / sizeof(int64_t)};
  all.request = malloc((file.size / 4 + 1) * sizeof *all.request);
  all.noted = calloc(all.total + 1, sizeof *all.noted);
  if (!all.request || !all.noted || !all.total) fail("nothing to send");
  for (size_t place = 0; place + 4 <= file.size; all.requests++) {
    uint32_t size;
    memcpy(&size, file.at + place, 4);
    all.request[all.requests] = (struct bytes){file.at + place + 4, size};
    place += 4 + size;
  }
  all.give_up = all.due[all.total - 1] + atoll(give_up_ms) * 1000000;
  return all;
}

static int64_t clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int64_t since_start(const struct schedule *all) { return clock_ns() - all->start; }

/* A connection whose events have this pointer. */
static int open_socket(int port, int epoll, void *pointer) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int yes = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes)) fail("TCP_NODELAY");
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = pointer};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) fail("epoll");
  return fd;
}

/* Sleep until something is to be read, or the request at this place is due if it may be sent; the number of events. */
static int wait_for_events(const struct schedule *all, size_t at, int may_send, int epoll, struct epoll_event *events) {
  int64_t now = since_start(all), wait = at < all->total && may_send ? all->due[at] - now : 100000000;
  errno = 0;
  if (now > all->give_up) fail("requests got no answer in time");
  struct timespec sleep = {wait > 0 ? wait / 1000000000 : 0, wait > 0 ? wait % 1000000000 : 0};
  int ready = epoll_pwait2(epoll, events, MOST_EVENTS, &sleep, 0);
  if (ready < 0 && errno != EINTR) fail("epoll_pwait2");
  return ready;
}

static void write_result(const struct schedule *all, const char *path) {
  FILE *result = fopen(path, "wb");
  if (!result || fwrite(all->noted, sizeof *all->noted, all->total, result) != all->total || fclose(result)) fail(path);
}
