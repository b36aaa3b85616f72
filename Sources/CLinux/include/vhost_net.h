/* vhost-net (linux/vhost.h). Each returns -1 with errno on failure. */
#pragma once
#include <stdint.h>

int apus_vhost_take(int vhost);
int apus_vhost_features(int vhost, uint64_t *features);
int apus_vhost_set_features(int vhost, uint64_t features);

struct apus_vhost_region { uint64_t guest, byte_count, host; };
int apus_vhost_set_memory(int vhost, const struct apus_vhost_region *regions, uint32_t count);

/* One ring: its size, where it goes on, its three parts as addresses of this process, its doorbell and its interrupt. */
struct apus_vhost_ring { uint32_t index, size, position; uint64_t descriptors, available, used; int kick, call; };
int apus_vhost_set_ring(int vhost, const struct apus_vhost_ring *ring);

/* Gives a ring its tap and starts it, or takes the tap away (-1) and waits until the kernel is done with the ring. */
int apus_vhost_set_backend(int vhost, uint32_t index, int tap);
int apus_vhost_position(int vhost, uint32_t index, uint32_t *position);
