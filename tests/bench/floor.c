/* The floor of an attachment: the netlink messages that a bridge ADD and DEL can't do without, sent from a static
 * program that does nothing else. No configuration is read, no address allocated, nothing checked or undone.
 *
 *   floor version
 *   floor add NETNS IFNAME HOSTIF BRIDGE MASQ ADDRESS/LEN GATEWAY [ADDRESS/LEN GATEWAY]
 *   floor del NETNS IFNAME MASQ ADDRESS/LEN GATEWAY [ADDRESS/LEN GATEWAY]
 *
 * MASQ is 0 or 1: one element in the set "pods4" (or "pods6") of the nftables table "inet floor", which the caller made. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char buffer[16384];
static size_t used;
static int acks;

static void fail(const char *what, int error) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(error));
    _exit(1);
}

static void *put(const void *data, size_t size) {
    void *at = buffer + used;
    if (data) memcpy(at, data, size); else memset(at, 0, size);
    used += NLMSG_ALIGN(size);
    return at;
}

static struct nlmsghdr *begin(int type, int flags, const void *head, size_t size) {
    struct nlmsghdr *message = put(NULL, sizeof *message);
    message->nlmsg_type = type;
    message->nlmsg_flags = NLM_F_REQUEST | flags;
    if (flags & NLM_F_ACK) acks++;
    put(head, size);
    return message;
}

static void end(struct nlmsghdr *message) { message->nlmsg_len = buffer + used - (char *)message; }

static struct rtattr *attribute(int type, const void *data, size_t size) {
    struct rtattr head = {.rta_len = RTA_LENGTH(size), .rta_type = type}, *at = put(&head, sizeof head);
    if (size) put(data, size);
    return at;
}

static struct rtattr *nest(int type) { return attribute(type | NLA_F_NESTED, NULL, 0); }
static void close_nest(struct rtattr *open) { open->rta_len = buffer + used - (char *)open; }
static void text(int type, const char *value) { attribute(type, value, strlen(value) + 1); }
static void number(int type, unsigned value) { attribute(type, &value, sizeof value); }

/* Sends what was put and waits for every acknowledgement. */
static void send_all(int socket, const char *what) {
    char answer[8192];
    if (send(socket, buffer, used, 0) < 0) fail(what, errno);
    while (acks > 0) {
        ssize_t size = recv(socket, answer, sizeof answer, 0);
        if (size < 0) fail(what, errno);
        for (struct nlmsghdr *m = (void *)answer; NLMSG_OK(m, size); m = NLMSG_NEXT(m, size)) {
            if (m->nlmsg_type != NLMSG_ERROR) continue;
            struct nlmsgerr *error = NLMSG_DATA(m);
            if (error->error) fail(what, -error->error);
            acks--;
        }
    }
    used = 0;
}

static int netlink(int family) {
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, family);
    if (fd < 0) fail("socket", errno);
    return fd;
}

struct cidr { int family, size, length; unsigned char address[16], gateway[16]; };

static struct cidr parse(char *address, const char *gateway) {
    struct cidr c = {.family = strchr(address, ':') ? AF_INET6 : AF_INET};
    char *slash = strchr(address, '/');
    *slash = 0;
    c.length = atoi(slash + 1);
    c.size = c.family == AF_INET ? 4 : 16;
    if (inet_pton(c.family, address, c.address) != 1 || inet_pton(c.family, gateway, c.gateway) != 1) fail(address, EINVAL);
    return c;
}

/* One transaction: adds or deletes an element per address. */
static void masquerade(int type, const struct cidr *addresses, int count) {
    int fd = netlink(NETLINK_NETFILTER);
    struct nfgenmsg batch = {.res_id = htons(NFNL_SUBSYS_NFTABLES)}, inet = {.nfgen_family = NFPROTO_INET};
    end(begin(NFNL_MSG_BATCH_BEGIN, 0, &batch, sizeof batch));
    for (int i = 0; i < count; i++) {
        const struct cidr *c = &addresses[i];
        struct nlmsghdr *m = begin(NFNL_SUBSYS_NFTABLES << 8 | type, NLM_F_ACK | (type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0), &inet, sizeof inet);
        text(NFTA_SET_ELEM_LIST_TABLE, "floor");
        text(NFTA_SET_ELEM_LIST_SET, c->family == AF_INET ? "pods4" : "pods6");
        struct rtattr *list = nest(NFTA_SET_ELEM_LIST_ELEMENTS), *element = nest(NFTA_LIST_ELEM), *key = nest(NFTA_SET_ELEM_KEY);
        attribute(NFTA_DATA_VALUE, c->address, c->size);
        close_nest(key);
        close_nest(element);
        close_nest(list);
        end(m);
    }
    end(begin(NFNL_MSG_BATCH_END, 0, &batch, sizeof batch));
    send_all(fd, "nftables");
}

int main(int argc, char **argv) {
    struct cidr addresses[2];
    int count = 0;
    if (argc < 2 || !strcmp(argv[1], "version")) {
        puts("{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"1.1.0\"]}");
        return 0;
    }
    int adding = !strcmp(argv[1], "add"), first = adding ? 7 : 5;
    const char *ifname = argv[3];
    for (int i = first; i + 1 < argc; i += 2) addresses[count++] = parse(argv[i], argv[i + 1]);
    int masq = argv[first - 1][0] == '1';

    int netns = open(argv[2], O_RDONLY | O_CLOEXEC), host = netlink(NETLINK_ROUTE);
    if (netns < 0) fail(argv[2], errno);
    struct ifinfomsg link = {0}, up = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP};

    if (!adding) {
        if (masq) masquerade(NFT_MSG_DELSETELEM, addresses, count);
        if (setns(netns, CLONE_NEWNET)) fail("setns", errno);
        int inside = netlink(NETLINK_ROUTE);
        struct nlmsghdr *m = begin(RTM_DELLINK, NLM_F_ACK, &link, sizeof link);
        text(IFLA_IFNAME, ifname);
        end(m);
        send_all(inside, "delete the link");
        return 0;
    }

    unsigned bridge = if_nametoindex(argv[5]);
    struct nlmsghdr *m = begin(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &up, sizeof up);
    text(IFLA_IFNAME, argv[4]);
    number(IFLA_MASTER, bridge);
    number(IFLA_NUM_TX_QUEUES, 1);
    number(IFLA_NUM_RX_QUEUES, 1);
    struct rtattr *info = nest(IFLA_LINKINFO);
    text(IFLA_INFO_KIND, "veth");
    struct rtattr *data = nest(IFLA_INFO_DATA), *peer = nest(VETH_INFO_PEER);
    put(&link, sizeof link);
    text(IFLA_IFNAME, ifname);
    number(IFLA_NET_NS_FD, netns);
    number(IFLA_NUM_TX_QUEUES, 1);
    number(IFLA_NUM_RX_QUEUES, 1);
    close_nest(peer);
    close_nest(data);
    close_nest(info);
    end(m);
    send_all(host, "make the veth");

    if (setns(netns, CLONE_NEWNET)) fail("setns", errno);
    int inside = netlink(NETLINK_ROUTE);
    unsigned index = if_nametoindex(ifname);
    up.ifi_index = index;
    for (int i = 0; i < count; i++) {
        struct ifaddrmsg a = {.ifa_family = addresses[i].family, .ifa_prefixlen = addresses[i].length, .ifa_index = index, .ifa_flags = IFA_F_NODAD};
        m = begin(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &a, sizeof a);
        attribute(IFA_LOCAL, addresses[i].address, addresses[i].size);
        attribute(IFA_ADDRESS, addresses[i].address, addresses[i].size);
        end(m);
    }
    end(begin(RTM_NEWLINK, NLM_F_ACK, &up, sizeof up));
    for (int i = 0; i < count; i++) {
        struct rtmsg r = {.rtm_family = addresses[i].family, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST};
        m = begin(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE, &r, sizeof r);
        attribute(RTA_GATEWAY, addresses[i].gateway, addresses[i].size);
        number(RTA_OIF, index);
        end(m);
    }
    send_all(inside, "configure the link");
    if (masq) {
        /* Back to the host's namespace, where the table is. */
        int own = open("/proc/1/ns/net", O_RDONLY | O_CLOEXEC);
        if (own < 0 || setns(own, CLONE_NEWNET)) fail("setns", errno);
        masquerade(NFT_MSG_NEWSETELEM, addresses, count);
    }
    printf("{\"cniVersion\":\"1.1.0\",\"interfaces\":[{\"name\":\"%s\"},{\"name\":\"%s\"}]}\n", argv[4], ifname);
    return 0;
}
