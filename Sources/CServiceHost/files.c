#define _GNU_SOURCE
#include "files.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int apus_host_memfd(const char *name) { return memfd_create(name, MFD_CLOEXEC); }

int apus_host_clone(int target, int source) { return ioctl(target, FICLONE, source); }

static int64_t copy_through_memory(int target, int source, int64_t offset, int64_t length) {
    char buffer[65536];
    size_t want = length < (int64_t)sizeof buffer ? (size_t)length : sizeof buffer;
    ssize_t got;
    do got = pread(source, buffer, want, offset); while (got < 0 && errno == EINTR);
    if (got <= 0) return got;
    for (ssize_t done = 0; done < got;) {
        ssize_t count = pwrite(target, buffer + done, (size_t)(got - done), offset + done);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return -1;
        done += count;
    }
    return got;
}

int64_t apus_host_copy(int target, int source, int64_t offset, int64_t length) {
    off_t from = offset, to = offset;
    ssize_t count;
    do count = copy_file_range(source, &from, target, &to, (size_t)length, 0); while (count < 0 && errno == EINTR);
    if (count > 0) return count;
    /* 0 may also mean a file system that cannot; reading tells it from the end. */
    if (count == 0 || errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP || errno == ETXTBSY)
        return copy_through_memory(target, source, offset, length);
    return -1;
}

int64_t apus_host_next_data(int descriptor, int64_t offset) { return lseek(descriptor, offset, SEEK_DATA); }

int64_t apus_host_next_hole(int descriptor, int64_t offset) { return lseek(descriptor, offset, SEEK_HOLE); }

static int close_keeping_errno(int descriptor) {
    int reason = errno;
    close(descriptor);
    errno = reason;
    return -1;
}

/* A socket, and in `address` the name that it is to be bound or connected to. */
static int open_local_socket(const char *path, struct sockaddr_un *address) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address->sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address->sun_path, path);
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

int apus_host_listen(const char *path) {
    struct sockaddr_un address;
    int listener = open_local_socket(path, &address);
    if (listener < 0) return -1;
    if (unlink(path) < 0 && errno != ENOENT) return close_keeping_errno(listener);
    /* bind gives the file the socket's own mode: there is no moment in which it is open to others. */
    if (fchmod(listener, 0600) < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0
        || listen(listener, 16) < 0)
        return close_keeping_errno(listener);
    return listener;
}

int apus_host_connect(const char *path, int milliseconds) {
    struct sockaddr_un address;
    int client = open_local_socket(path, &address);
    if (client < 0) return -1;
    struct timeval limit = {.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
    if (setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0
        || setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0
        || connect(client, (struct sockaddr *)&address, sizeof address) < 0)
        return close_keeping_errno(client);
    return client;
}

int64_t apus_host_send_descriptor(int socket, const void *bytes, int64_t count, int descriptor) {
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = (size_t)count};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.space};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}
