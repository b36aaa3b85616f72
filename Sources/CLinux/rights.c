#define _GNU_SOURCE
#include "rights.h"
#include <string.h>
#include <sys/socket.h>

enum { MOST = 16 };

long apus_receive(int socket, void *bytes, size_t byte_count, int *descriptors, int *count) {
    union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int) * MOST)]; } control;
    struct iovec vector = { bytes, byte_count };
    int room = *count < MOST ? *count : MOST;
    struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(sizeof(int) * room) };
    *count = 0;
    long got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) return got;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        int here = (int)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(descriptors + *count, CMSG_DATA(part), here * sizeof(int));
        *count += here;
    }
    return got;
}

long apus_send_with_descriptor(int socket, const void *bytes, size_t byte_count, int descriptor) {
    union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control = {0};
    struct iovec vector = { (void *)bytes, byte_count };
    struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.space };
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(part), &descriptor, sizeof(int));
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}
