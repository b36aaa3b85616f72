#define _GNU_SOURCE
#include "tun.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int apus_tap_open(const char *name, int multi_queue) {
    int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (tap < 0) return -1;
    struct ifreq request = {0};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (multi_queue ? IFF_MULTI_QUEUE : 0);
    if (ioctl(tap, TUNSETIFF, &request) < 0) {
        int reason = errno;
        close(tap);
        errno = reason;
        return -1;
    }
    return tap;
}

int apus_tap_set_header(int tap, int byte_count) { return ioctl(tap, TUNSETVNETHDRSZ, &byte_count); }

int apus_tap_set_offload(int tap, unsigned flags) { return ioctl(tap, TUNSETOFFLOAD, (unsigned long)flags); }

int apus_tap_set_attached(int tap, int attached) {
    struct ifreq request = {0};
    request.ifr_flags = attached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
    return ioctl(tap, TUNSETQUEUE, &request);
}

int apus_tap_flags(int tap, unsigned short *flags) {
    struct ifreq request = {0};
    if (ioctl(tap, TUNGETIFF, &request) < 0) return -1;
    *flags = (unsigned short)request.ifr_flags;
    return 0;
}

int apus_set_nonblocking(int descriptor) {
    int flags = fcntl(descriptor, F_GETFL);
    return flags < 0 ? -1 : fcntl(descriptor, F_SETFL, flags | O_NONBLOCK);
}
