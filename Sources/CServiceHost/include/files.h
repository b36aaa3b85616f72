/* Copies that keep holes, descriptors without a name, listening sockets. */
#pragma once
#include <stdint.h>

int apus_host_memfd(const char *name);

/* Shares all of `source`'s blocks with `target` where the file system can (FICLONE). */
int apus_host_clone(int target, int source);

/* Copies up to `length` bytes at `offset`, in the kernel where it can. Returns the count; 0 at the end of `source`. */
int64_t apus_host_copy(int target, int source, int64_t offset, int64_t length);

/* Where data, or a hole, begins at or after `offset`; ENXIO where there is none. */
int64_t apus_host_next_data(int descriptor, int64_t offset);
int64_t apus_host_next_hole(int descriptor, int64_t offset);

/* A stream socket listening at `path` (replaced where it exists), mode 0600, close-on-exec. ENAMETOOLONG: path too long for
   an address. */
int apus_host_listen(const char *path);
/* Connects to a UNIX socket; its reads and writes end with EAGAIN after `milliseconds`. The descriptor, or -1 with errno. */
int apus_host_connect(const char *path, int milliseconds);
/* Sends `count` bytes, and with the first of them `descriptor` (SCM_RIGHTS). How many went, or -1 with errno. */
int64_t apus_host_send_descriptor(int socket, const void *bytes, int64_t count, int descriptor);
