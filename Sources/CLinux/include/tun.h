/* Tap devices (linux/if_tun.h). Each returns -1 with errno on failure. */
#pragma once

/* Opens tap `name` with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR and, where asked, IFF_MULTI_QUEUE. */
int apus_tap_open(const char *name, int multi_queue);
int apus_tap_set_header(int tap, int byte_count);
int apus_tap_set_offload(int tap, unsigned flags);
int apus_tap_set_attached(int tap, int attached);
/* The flags the tap was made with. */
int apus_tap_flags(int tap, unsigned short *flags);
int apus_set_nonblocking(int descriptor);
