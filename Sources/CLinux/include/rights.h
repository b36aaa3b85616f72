/* Descriptors over a unix socket (unix(7), SCM_RIGHTS), whose control messages are macros. */
#pragma once
#include <stddef.h>

/* Receives at most `byte_count` bytes and `*count` descriptors without waiting; the descriptors are close-on-exec. Returns the
   bytes, 0 at the end, -1 with errno; `*count` becomes the number of descriptors that came. What does not fit is closed by the
   kernel. */
long apus_receive(int socket, void *bytes, size_t byte_count, int *descriptors, int *count);

/* Sends bytes with one descriptor beside the first of them. */
long apus_send_with_descriptor(int socket, const void *bytes, size_t byte_count, int descriptor);
