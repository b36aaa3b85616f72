#define _GNU_SOURCE
#include "pages.h"
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Constants of linux/mempolicy.h, which comes with no C library; its functions are in libnuma, which we do without. */
enum { MPOL_BIND_ = 2, MPOL_F_MEMS_ALLOWED_ = 4, MADV_POPULATE_WRITE_ = 23 };
enum { BITS = 8 * sizeof(unsigned long), WORDS = APUS_NODE_LIMIT / BITS };

#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

int apus_memfd_create_huge(const char *name, unsigned size_log2) {
    return memfd_create(name, MFD_CLOEXEC | MFD_HUGETLB | size_log2 << MFD_HUGE_SHIFT);
}

int apus_bind_memory(void *start, size_t byte_count, unsigned node) {
    if (node >= APUS_NODE_LIMIT) return EINVAL;
    unsigned long mask[WORDS] = {0};
    mask[node / BITS] = 1ul << node % BITS;
    /* The kernel takes one bit less than it is told. */
    return syscall(SYS_mbind, start, byte_count, MPOL_BIND_, mask, APUS_NODE_LIMIT + 1ul, 0u) == 0 ? 0 : errno;
}

int apus_may_use_node(unsigned node) {
    if (node >= APUS_NODE_LIMIT) return 0;
    unsigned long mask[WORDS] = {0};
    if (syscall(SYS_get_mempolicy, NULL, mask, (unsigned long)APUS_NODE_LIMIT, NULL, MPOL_F_MEMS_ALLOWED_) != 0) return -errno;
    return mask[node / BITS] >> node % BITS & 1;
}

int apus_populate_memory(void *start, size_t byte_count) {
    int result;
    do result = madvise(start, byte_count, MADV_POPULATE_WRITE_) == 0 ? 0 : errno; while (result == EINTR);
    return result;
}
