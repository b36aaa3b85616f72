#define _GNU_SOURCE
#include "links.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int close_keeping_errno(int descriptor) {
    int reason = errno;
    close(descriptor);
    errno = reason;
    return -1;
}

static int open_tap(const char *name, short flags) {
    int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (tap < 0) return -1;
    struct ifreq request = {0};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags);
    if (ioctl(tap, TUNSETIFF, &request) < 0) return close_keeping_errno(tap);
    return tap;
}

int apus_host_tap_create(const char *name, int multi_queue) {
    /* IFF_TUN_EXCL: never take over a link that somebody else made. */
    int tap = open_tap(name, (short)((multi_queue ? IFF_MULTI_QUEUE : 0) | IFF_TUN_EXCL));
    if (tap < 0 && errno == EBUSY) errno = EEXIST;
    return tap;
}

int apus_host_tap_queue(const char *name) { return open_tap(name, IFF_MULTI_QUEUE); }

int apus_host_link_exists(const char *name) { return if_nametoindex(name) != 0; }

static int interface_ioctl(unsigned long operation, struct ifreq *request, const char *name) {
    int socket_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket_ < 0) return -1;
    strncpy(request->ifr_name, name, IFNAMSIZ - 1);
    int result = ioctl(socket_, operation, request);
    if (result < 0) return close_keeping_errno(socket_);
    close(socket_);
    return 0;
}

int apus_host_link_set_mtu(const char *name, int mtu) {
    struct ifreq request = {0};
    request.ifr_mtu = mtu;
    return interface_ioctl(SIOCSIFMTU, &request, name);
}

int apus_host_link_set_address(const char *name, const unsigned char address[6]) {
    struct ifreq request = {0};
    request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(request.ifr_hwaddr.sa_data, address, 6);
    return interface_ioctl(SIOCSIFHWADDR, &request, name);
}

int apus_host_link_set_up(const char *name) {
    struct ifreq request = {0};
    if (interface_ioctl(SIOCGIFFLAGS, &request, name) < 0) return -1;
    request.ifr_flags |= IFF_UP;
    return interface_ioctl(SIOCSIFFLAGS, &request, name);
}

int apus_host_bridge_add(const char *bridge, const char *link) {
    struct ifreq request = {0};
    request.ifr_ifindex = (int)if_nametoindex(link);
    if (request.ifr_ifindex == 0) return -1;
    return interface_ioctl(SIOCBRADDIF, &request, bridge);
}

/* A request with its attributes, and the kernel's acknowledgement. */
struct link_request {
    struct nlmsghdr header;
    struct ifinfomsg link;
    char attributes[256];
};

static struct rtattr *append(struct link_request *request, unsigned short type, const void *data, size_t byte_count) {
    struct rtattr *attribute = (struct rtattr *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(byte_count);
    if (byte_count) memcpy(RTA_DATA(attribute), data, byte_count);
    request->header.nlmsg_len = (unsigned)(NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(attribute->rta_len));
    return attribute;
}

static void finish(struct link_request *request, struct rtattr *nest) {
    nest->rta_len = (unsigned short)((char *)request + request->header.nlmsg_len - (char *)nest);
}

static struct link_request make_request(unsigned short type, unsigned short flags) {
    struct link_request request = {0};
    request.header.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg));
    request.header.nlmsg_type = type;
    request.header.nlmsg_flags = (unsigned short)(NLM_F_REQUEST | NLM_F_ACK | flags);
    request.header.nlmsg_seq = 1;
    return request;
}

static int perform(struct link_request *request) {
    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (netlink < 0) return -1;
    struct timeval limit = {.tv_sec = 10};
    setsockopt(netlink, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    if (sendto(netlink, request, request->header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
        return close_keeping_errno(netlink);
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char rest[1024];
    } answer;
    ssize_t count;
    do count = recv(netlink, &answer, sizeof answer, 0); while (count < 0 && errno == EINTR);
    if (count < 0) return close_keeping_errno(netlink);
    close(netlink);
    if (count < (ssize_t)(NLMSG_HDRLEN + sizeof(int)) || answer.header.nlmsg_type != NLMSG_ERROR) {
        errno = EPROTO;
        return -1;
    }
    if (answer.error.error == 0) return 0;
    errno = -answer.error.error;
    return -1;
}

int apus_host_link_delete(const char *name) {
    struct link_request request = make_request(RTM_DELLINK, 0);
    append(&request, IFLA_IFNAME, name, strlen(name) + 1);
    return perform(&request);
}

int apus_host_bridge_create(const char *name) {
    struct link_request request = make_request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    append(&request, IFLA_IFNAME, name, strlen(name) + 1);
    struct rtattr *info = append(&request, IFLA_LINKINFO, NULL, 0);
    append(&request, IFLA_INFO_KIND, "bridge", strlen("bridge"));
    struct rtattr *data = append(&request, IFLA_INFO_DATA, NULL, 0);
    unsigned zero = 0;
    append(&request, IFLA_BR_FORWARD_DELAY, &zero, sizeof zero);
    append(&request, IFLA_BR_STP_STATE, &zero, sizeof zero);
    finish(&request, data);
    finish(&request, info);
    return perform(&request);
}
