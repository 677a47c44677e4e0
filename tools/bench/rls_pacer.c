/* Sends gRPC calls at fixed instants over HTTP/2 connections and notes when their answers were complete.
 *
 *   rls_pacer PORT CONNECTIONS STREAMS REQUESTS INSTANTS RESULT GIVE_UP_MS
 *
 * STREAMS   calls in flight on each connection, at most
 * REQUESTS  records of a 4-byte length (this machine's order) and so many bytes: first the header block of all calls,
 *           then messages; taken in turn, from the first again
 * INSTANTS  8-byte integers: nanoseconds from the start at which a call is due, ascending
 * RESULT    written: for each instant two 8-byte integers, nanoseconds from it to the complete answer and to the sending
 *
 * As pacer.c, which does it over HTTP/1.1: a call waits for an idle stream, never for an answer. Calls that leave at one
 * time over one connection leave in one write, as gRPC's own clients do it. Ends with 1 when a call is not answered by a
 * message. With all instants 0 it is a closed loop.
 */
#include "pacing.h"

enum { RING = 1 << 16, SPACE = 1 << 20, DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7 };

struct connection {
  int fd;
  uint32_t next;
  size_t *request_of; /* by stream, where the request is noted */
  uint8_t *has_message;
  uint8_t *got, *out;
  size_t size, out_size;
};

static void put(struct connection *one, const void *data, size_t size) {
  if (one->out_size + size > SPACE) fail("too much is to be sent at once");
  memcpy(one->out + one->out_size, data, size);
  one->out_size += size;
}

static void put_frame(struct connection *one, int kind, int flags, uint32_t stream, const void *payload, size_t size) {
  uint8_t head[9] = {size >> 16, size >> 8, size, kind, flags, stream >> 24, stream >> 16, stream >> 8, stream};
  put(one, head, sizeof head);
  put(one, payload, size);
}

static void flush(struct connection *one) {
  size_t sent = 0;
  while (sent < one->out_size) {
    ssize_t more = send(one->fd, one->out + sent, one->out_size - sent, MSG_NOSIGNAL);
    if (more < 0) fail("send");
    sent += more;
  }
  one->out_size = 0;
}

static void open_connection(struct connection *one, int port, int epoll) {
  one->fd = open_socket(port, epoll, one);
  one->next = 1;
  one->request_of = calloc(RING, sizeof *one->request_of);
  one->has_message = calloc(RING, 1);
  one->got = malloc(SPACE);
  one->out = malloc(SPACE);
  if (!one->request_of || !one->has_message || !one->got || !one->out) fail("memory");
  put(one, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
  put_frame(one, SETTINGS, 0, 0, "\0\4\0\x10\0\0", 6);
  put_frame(one, 8, 0, 0, "\x7f\0\0\0", 4); /* the connection's window: all that is left of 2^31 */
  flush(one);
}

static void ask(struct connection *one, size_t at, struct bytes block, struct bytes message) {
  uint8_t prefix[5] = {0, message.size >> 24, message.size >> 16, message.size >> 8, message.size};
  uint8_t head[9] = {0, (5 + message.size) >> 8, 5 + message.size, DATA, 1};
  uint32_t stream = one->next;
  one->next += 2;
  one->request_of[stream / 2 % RING] = at;
  one->has_message[stream / 2 % RING] = 0;
  put_frame(one, HEADERS, 4, stream, block.at, block.size);
  for (int i = 0; i < 4; i++) head[5 + i] = stream >> (24 - 8 * i);
  put(one, head, sizeof head);
  put(one, prefix, sizeof prefix);
  put(one, message.at, message.size);
}

int main(int count, char **arguments) {
  if (count != 8) fail("usage: rls_pacer PORT CONNECTIONS STREAMS REQUESTS INSTANTS RESULT GIVE_UP_MS");
  prctl(PR_SET_TIMERSLACK, 1);
  int connections = atoi(arguments[2]), slots = connections * atoi(arguments[3]);
  struct schedule plan = read_schedule(arguments[4], arguments[5], arguments[7]);
  size_t at = 0, answered = 0;
  struct connection *all = calloc(connections, sizeof *all);
  struct connection **idle = malloc(slots * sizeof *idle);
  int epoll = epoll_create1(0), first = 0, free_ones = slots;
  if (plan.requests < 2 || slots < 1 || !all || !idle || epoll < 0) fail("nothing to send");
  for (int i = 0; i < connections; i++) open_connection(&all[i], atoi(arguments[1]), epoll);
  for (int i = 0; i < slots; i++) idle[i] = &all[i % connections];
  plan.start = clock_ns() + 10000000;
  while (answered < plan.total) {
    int64_t now = since_start(&plan);
    while (at < plan.total && plan.due[at] <= now && free_ones) {
      struct connection *one = idle[first];
      first = (first + 1) % slots;
      free_ones--;
      plan.noted[at][1] = now - plan.due[at];
      ask(one, at, plan.request[0], plan.request[1 + at % (plan.requests - 1)]);
      at++;
      now = since_start(&plan);
    }
    for (int i = 0; i < connections; i++)
      if (all[i].out_size) flush(&all[i]);
    struct epoll_event events[MOST_EVENTS];
    int ready = wait_for_events(&plan, at, free_ones, epoll, events);
    for (int i = 0; i < ready; i++) {
      struct connection *one = events[i].data.ptr;
      ssize_t more = recv(one->fd, one->got + one->size, SPACE - one->size, 0);
      errno = more ? errno : 0;
      if (more <= 0) fail("the server closed a connection");
      one->size += more;
      size_t place = 0;
      while (one->size - place >= 9) {
        uint8_t *head = one->got + place;
        size_t size = head[0] << 16 | head[1] << 8 | head[2];
        if (one->size - place < 9 + size) break;
        place += 9 + size;
        uint32_t stream = (uint32_t)(head[5] & 127) << 24 | head[6] << 16 | head[7] << 8 | head[8];
        size_t ring = stream / 2 % RING, asked = one->request_of[ring];
        errno = 0;
        if (head[3] == RST_STREAM || head[3] == GOAWAY) fail("a call was reset, or the server went away");
        if (head[3] == SETTINGS && !(head[4] & 1)) put_frame(one, SETTINGS, 1, 0, "", 0);
        if (head[3] == PING && !(head[4] & 1)) put_frame(one, PING, 1, 0, head + 9, 8);
        if (head[3] == DATA) one->has_message[ring] = 1;
        if (head[3] != HEADERS || !(head[4] & 1)) continue;
        if (!one->has_message[ring]) {
          fprintf(stderr, "refused: %.*s\n", (int)(size < 200 ? size : 200), head + 9);
          exit(1);
        }
        plan.noted[asked][0] = since_start(&plan) - plan.due[asked];
        idle[(first + free_ones++) % slots] = one;
        answered++;
      }
      memmove(one->got, one->got + place, one->size -= place);
    }
  }
  write_result(&plan, arguments[6]);
  return 0;
}
