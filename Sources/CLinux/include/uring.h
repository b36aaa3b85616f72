/* io_uring and fallocate, which Glibc's module does not show. Ring layout and opcodes are the kernel's ABI. */
#pragma once
#include <linux/io_uring.h>
#include <stdint.h>

/* The three system calls; each returns -1 with errno. */
int apus_uring_setup(uint32_t entries, struct io_uring_params *params);
int apus_uring_enter(int ring, uint32_t submit, uint32_t wait, uint32_t flags);
int apus_uring_register(int ring, uint32_t opcode, const void *argument, uint32_t count);

/* Fills one submission entry (anonymous unions: easier said in C). */
void apus_uring_prepare(struct io_uring_sqe *entry, uint8_t opcode, int descriptor, uint64_t address, uint32_t length,
                        uint64_t offset, uint32_t flags, uint64_t tag);

/* pwritev2 with RWF_DSYNC where durable; returns -1 with errno. */
long apus_pwritev(int descriptor, const struct iovec *vectors, int count, int64_t offset, int durable);

enum { APUS_FALLOC_PUNCH = 0x03 /* punch hole, keep size */, APUS_FALLOC_ZERO = 0x11 /* zero range, keep size */ };
int apus_fallocate(int descriptor, int mode, int64_t offset, int64_t length);
