/* Starts processes and says how long they took: the part of the bench that must not disturb what it measures.
 *
 * A program's ru_maxrss starts with the resident memory of whoever started it (exec_mmap() in the kernel), so a
 * measurement by an interpreter shows the interpreter. This one is static and smaller than anything it starts.
 *
 * Reads one request a line:  path US stdin US stdout US argc US argument... US environment...  [RS the same]...
 * (US, RS: the ASCII unit and record separators.) Several records are started together.
 * Answers one line: nanoseconds from the first start to the last end, then for each
 * "exit-status:max-rss-in-KiB:microseconds-of-CPU". */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

enum { RECORDS = 64, FIELDS = 64 };

struct command {
    char *fields[FIELDS], *argv[FIELDS], *env[FIELDS];
    posix_spawn_file_actions_t files;
    pid_t pid;
    int status;
    long rss, cpu;
};

static struct command commands[RECORDS];

static void parse(struct command *c, char *record) {
    int count = 0, argc;
    for (char *field; (field = strsep(&record, "\x1f")) && count < FIELDS - 1;) c->fields[count++] = field;
    argc = atoi(c->fields[3]);
    memset(c->argv, 0, sizeof c->argv);
    memset(c->env, 0, sizeof c->env);
    memcpy(c->argv, c->fields + 4, argc * sizeof(char *));
    memcpy(c->env, c->fields + 4 + argc, (count - 4 - argc) * sizeof(char *));
    posix_spawn_file_actions_init(&c->files);
    posix_spawn_file_actions_addopen(&c->files, 0, c->fields[1], O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&c->files, 1, c->fields[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&c->files, 1, 2);
}

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(void) {
    static char line[1 << 20];
    while (fgets(line, sizeof line, stdin)) {
        int count = 0;
        line[strcspn(line, "\n")] = 0;
        for (char *rest = line, *record; (record = strsep(&rest, "\x1e")) && count < RECORDS;) parse(&commands[count++], record);
        long long start = now();
        for (int i = 0; i < count; i++) {
            struct command *c = &commands[i];
            if (posix_spawn(&c->pid, c->fields[0], &c->files, NULL, c->argv, c->env)) c->pid = 0, c->status = 127 << 8, c->rss = c->cpu = 0;
        }
        for (int left = count; left > 0; left--) {
            struct rusage usage;
            int status;
            pid_t pid = wait4(-1, &status, 0, &usage);
            for (int i = 0; i < count && pid > 0; i++)
                if (commands[i].pid == pid) {
                    commands[i].status = status;
                    commands[i].rss = usage.ru_maxrss;
                    commands[i].cpu = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
                }
        }
        printf("%lld", now() - start);
        for (int i = 0; i < count; i++) {
            int s = commands[i].status;
            printf(" %d:%ld:%ld", WIFEXITED(s) ? WEXITSTATUS(s) : 128 + WTERMSIG(s), commands[i].rss, commands[i].cpu);
            posix_spawn_file_actions_destroy(&commands[i].files);
        }
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
