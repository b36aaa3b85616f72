/* Network links by ioctl and netlink. Names are at most 15 bytes; the caller has checked them. */
#pragma once

/* A new tap with IFF_NO_PI, IFF_VNET_HDR and, where asked, IFF_MULTI_QUEUE; gone with its last descriptor. EEXIST where a
   link of that name exists. */
int apus_host_tap_create(const char *name, int multi_queue);
/* One more queue of a multi-queue tap. */
int apus_host_tap_queue(const char *name);
/* 1: there is such a link; 0: none. */
int apus_host_link_exists(const char *name);
int apus_host_link_set_mtu(const char *name, int mtu);
int apus_host_link_set_address(const char *name, const unsigned char address[6]);
int apus_host_link_set_up(const char *name);
int apus_host_link_delete(const char *name);
/* A bridge without spanning tree and forward delay (IFLA_BR_*). EEXIST where a link of that name exists. */
int apus_host_bridge_create(const char *name);
/* Puts a link into a bridge. EBUSY: it is in one; EOPNOTSUPP: `bridge` is none. */
int apus_host_bridge_add(const char *bridge, const char *link);
