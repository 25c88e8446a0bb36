// The servers that a user of libevent would write: evhttp with the files of one folder in memory, and an echo of bytes.
//
//   libevent PROCESSES FOLDER [ADDRESS [HTTP-PORT [ECHO-PORT]]]
//
// Each process has one loop and listening sockets of its own (SO_REUSEPORT). "ready" goes to standard output when all
// listen. SIGTERM ends it; a child goes with its parent.
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <arpa/inet.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>

#define FILES 64

struct file {
    char path[300]; // with the slash in front
    char *bytes;
    size_t len;
};

static struct file files[FILES];
static int file_count;

static void die(const char *what)
{
    fprintf(stderr, "libevent server: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void load(const char *folder)
{
    DIR *dir = opendir(folder);
    if (!dir) die(folder);
    for (struct dirent *entry; file_count < FILES && (entry = readdir(dir));) {
        if (entry->d_type != DT_REG) continue;
        char name[PATH_MAX];
        snprintf(name, sizeof name, "%s/%s", folder, entry->d_name);
        FILE *in = fopen(name, "rb");
        if (!in) die(name);
        struct file *file = &files[file_count++];
        snprintf(file->path, sizeof file->path, "/%s", entry->d_name);
        fseek(in, 0, SEEK_END);
        file->len = (size_t)ftell(in);
        rewind(in);
        file->bytes = malloc(file->len + 1);
        if (!file->bytes || fread(file->bytes, 1, file->len, in) != file->len) die(name);
        fclose(in);
    }
    closedir(dir);
}

static void on_request(struct evhttp_request *request, void *unused)
{
    (void)unused;
    const char *uri = evhttp_request_get_uri(request);
    for (int i = 0; i < file_count; i++) {
        if (strcmp(files[i].path, uri) != 0) continue;
        struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
        evhttp_add_header(headers, "Content-Type", "application/octet-stream");
        struct evbuffer *body = evhttp_request_get_output_buffer(request);
        evbuffer_add_reference(body, files[i].bytes, files[i].len, NULL, NULL);
        evhttp_send_reply(request, HTTP_OK, "OK", NULL);
        return;
    }
    evhttp_send_error(request, HTTP_NOTFOUND, NULL);
}

static void on_echo_read(struct bufferevent *connection, void *unused)
{
    (void)unused;
    bufferevent_write_buffer(connection, bufferevent_get_input(connection));
}

static void on_echo_event(struct bufferevent *connection, short what, void *unused)
{
    (void)unused;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) bufferevent_free(connection);
}

static void on_echo(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from, int len, void *base)
{
    (void)listener, (void)from, (void)len;
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct bufferevent *connection = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!connection) {
        close(fd);
        return;
    }
    bufferevent_setcb(connection, on_echo_read, NULL, on_echo_event, NULL);
    bufferevent_enable(connection, EV_READ | EV_WRITE);
}

static struct evconnlistener *listen_on(struct event_base *base, const char *address, int port, evconnlistener_cb on)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    if (inet_pton(AF_INET, address, &at.sin_addr) != 1) die(address);
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE | LEV_OPT_REUSEABLE_PORT;
    struct evconnlistener *listener = evconnlistener_new_bind(base, on, base, flags, 8192, (struct sockaddr *)&at, sizeof at);
    if (!listener) die("listen");
    return listener;
}

static void serve(const char *address, int http_port, int echo_port, int ready)
{
    struct event_base *base = event_base_new();
    struct evhttp *http = base ? evhttp_new(base) : NULL;
    if (!http) die("event_base_new");
    evhttp_set_gencb(http, on_request, NULL);
    // A connection that asks nothing for a while is kept: what is measured holds such connections.
    evhttp_set_timeout(http, 3600);
    if (!evhttp_bind_listener(http, listen_on(base, address, http_port, NULL))) die("evhttp_bind_listener");
    listen_on(base, address, echo_port, on_echo);
    if (write(ready, "r", 1) != 1) die("write");
    event_base_dispatch(base);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: libevent PROCESSES FOLDER [ADDRESS [HTTP-PORT [ECHO-PORT]]]\n");
        return 2;
    }
    int processes = atoi(argv[1]);
    const char *address = argc > 3 ? argv[3] : "0.0.0.0";
    int http_port = argc > 4 ? atoi(argv[4]) : 80, echo_port = argc > 5 ? atoi(argv[5]) : 7;
    load(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit most;
    if (getrlimit(RLIMIT_NOFILE, &most) == 0) {
        most.rlim_cur = most.rlim_max;
        setrlimit(RLIMIT_NOFILE, &most);
    }
    int ready[2];
    if (pipe(ready)) die("pipe");
    for (int i = 0; i < processes; i++) {
        pid_t child = fork();
        if (child < 0) die("fork");
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(ready[0]);
            serve(address, http_port, echo_port, ready[1]);
            return 0;
        }
    }
    close(ready[1]);
    char byte;
    for (int i = 0; i < processes; i++)
        if (read(ready[0], &byte, 1) != 1) return 1;
    printf("ready\n");
    fflush(stdout);
    // One that ends takes the others with it.
    wait(NULL);
    return 1;
}
