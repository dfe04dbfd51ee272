/* The least that a relay can cost: a forwarder to one fixed address, by epoll and splice, without any protocol, limit or
 * log. The benchmark compiles it and measures the proxies by it.
 *
 * usage: forward PORT TARGETPORT (both on 127.0.0.1) */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIPE_SIZE = 1 << 20, CHUNK = 1 << 20, SMALL = 16 << 10, MAX_SPARE = 256 };

struct pipe { int in, out; };
static struct pipe spare[MAX_SPARE];
static int spares;

/* One way of a relay: bytes read but not yet written lie in memory or in a pipe. */
struct way {
	char *mem;
	int start, end;
	struct pipe pipe;
	int piped;
	int bulk, fin, done;
};
struct relay;
struct end { struct relay *relay; int fd; };
struct relay { struct end ends[2]; struct way ways[2]; int dead; struct relay *next; };

static char scratch[SMALL];
static int ep;
static struct relay *graves;

static int take_pipe(struct pipe *p) {
	int fds[2];
	if (spares > 0) { *p = spare[--spares]; return 0; }
	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) return -1;
	fcntl(fds[0], F_SETPIPE_SZ, PIPE_SIZE);
	p->out = fds[0]; p->in = fds[1];
	return 0;
}

static void give_pipe(struct way *w) {
	if (w->pipe.in == 0) return;
	if (w->piped == 0 && spares < MAX_SPARE) spare[spares++] = w->pipe;
	else { close(w->pipe.in); close(w->pipe.out); }
	w->pipe.in = w->pipe.out = 0;
}

static void end_relay(struct relay *r) {
	if (r->dead) return;
	r->dead = 1;
	for (int i = 0; i < 2; i++) {
		close(r->ends[i].fd);
		give_pipe(&r->ways[i]);
		free(r->ways[i].mem);
	}
	r->next = graves; graves = r;
}

/* Writes what is in hand. 1: all, 0: no room, -1: failed. */
static int flush(struct way *w, int to) {
	while (w->start < w->end) {
		ssize_t n = send(to, w->mem + w->start, w->end - w->start, MSG_NOSIGNAL);
		if (n < 0) return errno == EAGAIN ? 0 : -1;
		w->start += n;
	}
	while (w->piped > 0) {
		ssize_t n = splice(w->pipe.out, NULL, to, NULL, w->piped, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
		if (n < 0) return errno == EAGAIN ? 0 : -1;
		w->piped -= n;
	}
	return 1;
}

/* Keeps what a send did not take. -1: failed. */
static int keep(struct way *w, ssize_t sent, ssize_t got) {
	if (!w->mem && !(w->mem = malloc(SMALL))) return -1;
	for (ssize_t i = sent; i < got; i++) w->mem[i] = scratch[i];
	w->start = sent; w->end = got;
	return 0;
}

static int move(struct way *w, int from, int to) {
	while (!w->done) {
		int f = flush(w, to);
		if (f <= 0) return f;
		if (w->fin) { w->done = 1; give_pipe(w); return shutdown(to, SHUT_WR); }
		if (w->bulk && (w->pipe.in || take_pipe(&w->pipe) == 0)) {
			ssize_t n = splice(from, NULL, w->pipe.in, NULL, CHUNK, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
			if (n < 0 && errno != EAGAIN) return -1;
			if (n < 0) { give_pipe(w); w->bulk = 0; return 0; }
			if (n == 0) w->fin = 1; else w->piped = n;
			continue;
		}
		ssize_t n = recv(from, scratch, SMALL, 0);
		if (n < 0) return errno == EAGAIN ? 0 : -1;
		if (n == 0) { w->fin = 1; continue; }
		ssize_t sent = send(to, scratch, n, MSG_NOSIGNAL);
		if (sent < 0 && errno != EAGAIN) return -1;
		if (sent < 0) sent = 0;
		if (sent < n && keep(w, sent, n) < 0) return -1;
		w->bulk = n == SMALL;
	}
	return 0;
}

static void moved(struct relay *r) {
	if (r->dead) return;
	if (move(&r->ways[0], r->ends[0].fd, r->ends[1].fd) < 0 || move(&r->ways[1], r->ends[1].fd, r->ends[0].fd) < 0 ||
	    (r->ways[0].done && r->ways[1].done))
		end_relay(r);
}

static void start(int client, const struct sockaddr_in *target) {
	int one = 1;
	struct relay *r = calloc(1, sizeof *r);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (!r || fd < 0 || (connect(fd, (const struct sockaddr *)target, sizeof *target) < 0 && errno != EINPROGRESS)) {
		close(client); close(fd); free(r);
		return;
	}
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	r->ends[0] = (struct end){r, client};
	r->ends[1] = (struct end){r, fd};
	for (int i = 0; i < 2; i++) {
		struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = &r->ends[i]};
		epoll_ctl(ep, EPOLL_CTL_ADD, r->ends[i].fd, &ev);
	}
}

static int listen_on(int port) {
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 4096) < 0) return -1;
	return fd;
}

int main(int argc, char **argv) {
	struct epoll_event evs[256];
	if (argc != 3) { fprintf(stderr, "usage: forward PORT TARGETPORT\n"); return 2; }
	signal(SIGPIPE, SIG_IGN); /* splice has no MSG_NOSIGNAL */
	struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int ln = listen_on(atoi(argv[1]));
	if (ln < 0) { perror("forward"); return 1; }
	ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
	epoll_ctl(ep, EPOLL_CTL_ADD, ln, &ev);
	for (;;) {
		int n = epoll_wait(ep, evs, 256, -1);
		for (int i = 0; i < n; i++) {
			struct end *e = evs[i].data.ptr;
			if (e) { moved(e->relay); continue; }
			for (int client; (client = accept4(ln, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) start(client, &target);
		}
		for (struct relay *r; (r = graves);) { graves = r->next; free(r); }
	}
}
