#define _GNU_SOURCE
#include "processes.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

int apus_host_pidfd_open(int pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

int apus_host_pidfd_signal(int pidfd, int signal) { return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0); }

int apus_host_reap(int pidfd, int *status) {
    siginfo_t info = {0};
    int result;
    do result = waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG); while (result < 0 && errno == EINTR);
    if (result < 0) return -1;
    if (info.si_pid == 0) return 0;
    *status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
    return 1;
}

int apus_host_wait_end(int pidfd, int milliseconds) {
    struct pollfd wanted = {.fd = pidfd, .events = POLLIN};
    int result = poll(&wanted, 1, milliseconds);
    return result < 0 && errno == EINTR ? 0 : result;
}

/* Between fork and exec: only calls that are safe after the fork of a program with threads. */
static void become(const char *path, char *const arguments[], char *const environment[], const int *descriptors, int count,
                   int output, int error, int new_session, int report) {
    int sources[APUS_HOST_DESCRIPTOR_LIMIT];
    if (new_session && setsid() < 0) goto failed;
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < 65; number++) sigaction(number, &action, NULL); /* some refuse: they are at default */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    umask(077);
    if (chdir("/") < 0) goto failed;
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);

    /* Out of the way of their places first, so that no place is taken while its owner is still to move. */
    int above = 3 + count;
    report = fcntl(report, F_DUPFD_CLOEXEC, above);
    output = fcntl(output, F_DUPFD_CLOEXEC, above);
    error = fcntl(error, F_DUPFD_CLOEXEC, above);
    int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (report < 0 || output < 0 || error < 0 || input < 0) goto failed;
    if (input < above && (input = fcntl(input, F_DUPFD_CLOEXEC, above)) < 0) goto failed;
    for (int i = 0; i < count; i++)
        if ((sources[i] = fcntl(descriptors[i], F_DUPFD_CLOEXEC, above)) < 0) goto failed;
    if (dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(error, 2) < 0) goto failed;
    for (int i = 0; i < count; i++)
        if (dup2(sources[i], 3 + i) < 0) goto failed;
    if (syscall(SYS_close_range, above, ~0U, CLOSE_RANGE_CLOEXEC) < 0) {
        struct rlimit limit; /* before Linux 5.11 */
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0) goto failed;
        for (int number = above; number < (int)limit.rlim_cur && number < 65536; number++)
            if (number != report) fcntl(number, F_SETFD, FD_CLOEXEC);
    }
    execve(path, arguments, environment);
failed:;
    int reason = errno;
    (void)!write(report, &reason, sizeof reason);
    _exit(127);
}

int apus_host_start(const char *path, char *const arguments[], char *const environment[], const int *descriptors, int count,
                    int output, int error, int new_session, int *pidfd) {
    int report[2];
    if (count > APUS_HOST_DESCRIPTOR_LIMIT) {
        errno = E2BIG;
        return -1;
    }
    if (pipe2(report, O_CLOEXEC) < 0) return -1;
    /* No handler of ours may run in the child. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0) become(path, arguments, environment, descriptors, count, output, error, new_session, report[1]);
    int reason = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(report[1]);
    if (pid < 0) {
        close(report[0]);
        errno = reason;
        return -1;
    }
    int handle = apus_host_pidfd_open(pid);
    if (handle < 0) {
        reason = errno;
        kill(pid, SIGKILL);
    } else {
        ssize_t got;
        do got = read(report[0], &reason, sizeof reason); while (got < 0 && errno == EINTR);
        if (got == 0) {
            close(report[0]);
            *pidfd = handle;
            return pid;
        }
        close(handle);
    }
    close(report[0]);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
    errno = reason;
    return -1;
}

int apus_host_watch_create(void) { return epoll_create1(EPOLL_CLOEXEC); }

int apus_host_watch_add(int watch, int descriptor, uint64_t token) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = token};
    return epoll_ctl(watch, EPOLL_CTL_ADD, descriptor, &event);
}

int apus_host_watch_next(int watch, uint64_t *token) {
    struct epoll_event event;
    int count;
    do count = epoll_wait(watch, &event, 1, -1); while (count < 0 && errno == EINTR);
    if (count < 0) return -1;
    *token = event.data.u64;
    return 0;
}
