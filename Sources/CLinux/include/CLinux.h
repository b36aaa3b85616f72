/* Linux interfaces that Swift's Glibc module does not show: one header a subject, constants re-exported as typed values. */
#pragma once
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <pthread.h>
#include <signal.h>
#include "blockthread.h"
#include "checksum.h"
#include "pages.h"
#include "rights.h"
#include "signals.h"
#include "tun.h"
#include "uring.h"
#include "vhost_net.h"

/* Glibc's module map leaves memfd_create out. Returns the descriptor or -1 with errno. */
int apus_memfd_create(const char *name);

/* Names the calling thread (prctl PR_SET_NAME; 15 bytes are kept). */
int apus_name_thread(const char *name);
