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
#include "pacing.h"

#include <strings.h>

enum { MOST_BYTES = 1 << 22 };

struct connection {
  int fd;
  size_t request;
  char *got;
  size_t size, space;
};

static void open_connection(struct connection *one, int port, int epoll) {
  one->fd = open_socket(port, epoll, one);
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
  struct schedule plan = read_schedule(arguments[3], arguments[4], arguments[6]);
  size_t at = 0, answered = 0;
  struct connection *all = calloc(connections, sizeof *all);
  struct connection **idle = malloc(connections * sizeof *idle);
  int epoll = epoll_create1(0), first = 0, free_ones = connections;
  if (!plan.requests || connections < 1 || !all || !idle || epoll < 0) fail("nothing to send");
  for (int i = 0; i < connections; i++) {
    open_connection(&all[i], atoi(arguments[1]), epoll);
    idle[i] = &all[i];
  }
  plan.start = clock_ns() + 10000000;
  while (answered < plan.total) {
    int64_t now = since_start(&plan);
    while (at < plan.total && plan.due[at] <= now && free_ones) {
      struct connection *one = idle[first];
      struct bytes next = plan.request[at % plan.requests];
      first = (first + 1) % connections;
      free_ones--;
      one->request = at;
      plan.noted[at][1] = now - plan.due[at];
      if (send(one->fd, next.at, next.size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)next.size) fail("send");
      at++;
      now = since_start(&plan);
    }
    struct epoll_event events[MOST_EVENTS];
    int ready = wait_for_events(&plan, at, free_ones, epoll, events);
    for (int i = 0; i < ready; i++) {
      struct connection *one = events[i].data.ptr;
      if (!receive(one)) continue;
      plan.noted[one->request][0] = since_start(&plan) - plan.due[one->request];
      idle[(first + free_ones++) % connections] = one;
      answered++;
    }
  }
  write_result(&plan, arguments[5]);
  return 0;
}
