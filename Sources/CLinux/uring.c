#define _GNU_SOURCE
#include "CLinux.h"
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int apus_uring_setup(uint32_t entries, struct io_uring_params *params) {
    return (int)syscall(__NR_io_uring_setup, entries, params);
}

int apus_uring_enter(int ring, uint32_t submit, uint32_t wait, uint32_t flags) {
    return (int)syscall(__NR_io_uring_enter, ring, submit, wait, flags, NULL, 0);
}

int apus_uring_register(int ring, uint32_t opcode, const void *argument, uint32_t count) {
    return (int)syscall(__NR_io_uring_register, ring, opcode, argument, count);
}

void apus_uring_prepare(struct io_uring_sqe *entry, uint8_t opcode, int descriptor, uint64_t address, uint32_t length,
                        uint64_t offset, uint32_t flags, uint64_t tag) {
    memset(entry, 0, sizeof *entry);
    entry->opcode = opcode;
    entry->fd = descriptor;
    entry->addr = address;
    entry->len = length;
    entry->off = offset;
    entry->rw_flags = (int)flags;
    entry->user_data = tag;
}

long apus_pwritev(int descriptor, const struct iovec *vectors, int count, int64_t offset, int durable) {
    return pwritev2(descriptor, vectors, count, offset, durable ? RWF_DSYNC : 0);
}

int apus_fallocate(int descriptor, int mode, int64_t offset, int64_t length) {
    return fallocate(descriptor, mode, offset, length);
}
