#define _GNU_SOURCE
#include "vhost_net.h"
#include <errno.h>
#include <linux/vhost.h>
#include <stdlib.h>
#include <sys/ioctl.h>

int apus_vhost_take(int vhost) { return ioctl(vhost, VHOST_SET_OWNER, 0); }
int apus_vhost_features(int vhost, uint64_t *features) { return ioctl(vhost, VHOST_GET_FEATURES, features); }
int apus_vhost_set_features(int vhost, uint64_t features) { return ioctl(vhost, VHOST_SET_FEATURES, &features); }

int apus_vhost_set_memory(int vhost, const struct apus_vhost_region *regions, uint32_t count) {
    struct vhost_memory *memory = calloc(1, sizeof *memory + count * sizeof(struct vhost_memory_region));
    if (!memory) return -1;
    memory->nregions = count;
    for (uint32_t i = 0; i < count; i++)
        memory->regions[i] = (struct vhost_memory_region){
            .guest_phys_addr = regions[i].guest, .memory_size = regions[i].byte_count, .userspace_addr = regions[i].host };
    int result = ioctl(vhost, VHOST_SET_MEM_TABLE, memory), reason = errno;
    free(memory);
    errno = reason;
    return result;
}

int apus_vhost_set_ring(int vhost, const struct apus_vhost_ring *ring) {
    struct vhost_vring_state size = { ring->index, ring->size }, base = { ring->index, ring->position };
    struct vhost_vring_addr address = { .index = ring->index, .desc_user_addr = ring->descriptors, .avail_user_addr = ring->available,
                                        .used_user_addr = ring->used };
    struct vhost_vring_file kick = { ring->index, ring->kick }, call = { ring->index, ring->call };
    if (ioctl(vhost, VHOST_SET_VRING_NUM, &size) < 0 || ioctl(vhost, VHOST_SET_VRING_BASE, &base) < 0) return -1;
    if (ioctl(vhost, VHOST_SET_VRING_ADDR, &address) < 0) return -1;
    if (ioctl(vhost, VHOST_SET_VRING_KICK, &kick) < 0) return -1;
    return ioctl(vhost, VHOST_SET_VRING_CALL, &call);
}

int apus_vhost_set_backend(int vhost, uint32_t index, int tap) {
    struct vhost_vring_file file = { index, tap };
    return ioctl(vhost, VHOST_NET_SET_BACKEND, &file);
}

int apus_vhost_position(int vhost, uint32_t index, uint32_t *position) {
    struct vhost_vring_state state = { index, 0 };
    if (ioctl(vhost, VHOST_GET_VRING_BASE, &state) < 0) return -1;
    *position = state.num;
    return 0;
}
