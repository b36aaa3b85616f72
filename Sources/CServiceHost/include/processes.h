/* Processes that outlive their parent, held by pidfd. */
#pragma once
#include <stdint.h>

enum { APUS_HOST_DESCRIPTOR_LIMIT = 256 };

/* Starts `path` with descriptors[i] as descriptor 3 + i and nothing else but /dev/null as input, `output` and `error`: in a
   session of its own, in "/", with default signal actions, umask 077 and no core dumps. Returns when exec succeeded: its pid,
   and its pidfd (close-on-exec). With new_session 0 it stays in our session (a helper that ends before we do). */
int apus_host_start(const char *path, char *const arguments[], char *const environment[], const int *descriptors, int count,
                    int output, int error, int new_session, int *pidfd);

int apus_host_pidfd_open(int pid);
int apus_host_pidfd_signal(int pidfd, int signal);
/* Takes the exit status of an ended child: 1 and the status as waitpid's, 0 not ended, -1 ECHILD not our child. */
int apus_host_reap(int pidfd, int *status);
/* 1: ended; 0: `milliseconds` passed. */
int apus_host_wait_end(int pidfd, int milliseconds);

/* A set of descriptors of which each is reported readable once. */
int apus_host_watch_create(void);
int apus_host_watch_add(int watch, int descriptor, uint64_t token);
/* Blocks until one is readable. */
int apus_host_watch_next(int watch, uint64_t *token);
