/* Where memory comes from: huge pages, and nodes of the host (memfd_create(2), mbind(2), get_mempolicy(2), madvise(2)). */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Nodes that the calls below can name: 0 to 1023, as many as Linux has at most. */
#define APUS_NODE_LIMIT 1024

/* An anonymous file of huge pages of 1 << size_log2 bytes. Returns the descriptor or -1 with errno. */
int apus_memfd_create_huge(const char *name, unsigned size_log2);

/* Whole pages, none of which was touched yet, come from this node of the host alone. Returns 0 or errno. */
int apus_bind_memory(void *start, size_t byte_count, unsigned node);

/* Whether this process may have memory of this node of the host: 1 or 0; negative errno where the kernel does not say. */
int apus_may_use_node(unsigned node);

/* Makes every page now, so that a later touch cannot fail (Linux 5.14). Returns 0 or errno. */
int apus_populate_memory(void *start, size_t byte_count);
